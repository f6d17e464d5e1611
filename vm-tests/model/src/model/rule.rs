// SPDX-License-Identifier: GPL-2.0-only
//! The parameters of a rule.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, bail, ensure};

/// How a rule treats internal packets, those with both addresses inside its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Internal {
    /// Without the option: counts them like others.
    Count,
    /// `--nointernal`: does not count them.
    Skip,
    /// `! --nointernal`: counts only them.
    Only,
}

/// The files of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// `--traffic`: NAME, bytes per address.
    Traffic,
    /// `--ipconn`: NAME.ipconn, connections per address.
    Ipconn,
    /// `--portconn`: NAME.portconn, connections per port.
    Portconn,
}

impl File {
    /// All files, in the order of their names.
    pub const ALL: [Self; 3] = [Self::Traffic, Self::Ipconn, Self::Portconn];

    /// The first line of the file.
    pub fn header(self) -> &'static str {
        match self {
            Self::Traffic => "IP\t\tTOTAL\t\tTCP\t\tUDP\t\tOTHER\n",
            Self::Ipconn => "IP\t\tTOTAL\t\tTCP\t\tUDP\t\tICMP\t\tOTHER\n",
            Self::Portconn => "PORT\t\tTOTAL\t\tTCP\t\tUDP\t\tICMP\t\tOTHER\n",
        }
    }

    /// The name of the file of a table.
    pub fn name(self, table: &str) -> String {
        let ending = match self {
            Self::Traffic => "",
            Self::Ipconn => ".ipconn",
            Self::Portconn => ".portconn",
        };
        format!("{table}{ending}")
    }
}

/// The parameters of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    base: IpAddr,
    length: u32,
    /// The length of the networks that have a row each; `None` when each address has its own.
    prefix: Option<u32>,
    internal: Internal,
    files: [bool; 3],
}

impl Rule {
    /// `--traffic` for all IPv4 addresses.
    pub const ALL_IPV4: Self = Self::all(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    /// `--traffic` for all IPv6 addresses.
    pub const ALL_IPV6: Self = Self::all(IpAddr::V6(Ipv6Addr::UNSPECIFIED));

    const fn all(base: IpAddr) -> Self {
        Self { base, length: 0, prefix: None, internal: Internal::Count, files: [true, false, false] }
    }

    /// `--traffic` for the network `base/length`.
    ///
    /// # Panics
    /// When the prefix is longer than an address.
    pub fn new(base: impl Into<IpAddr>, length: u32, internal: Internal) -> Self {
        let base = base.into();
        assert!(length <= bits(base), "a prefix of {length} bits");
        Self { base, length, internal, ..Self::all(base) }
    }

    /// Adds `--prefix`.
    ///
    /// # Panics
    /// When it is shorter than the network's prefix or longer than an address.
    #[must_use]
    pub fn with_prefix(self, prefix: u32) -> Self {
        self.checked_prefix(prefix).expect("a valid prefix")
    }

    fn checked_prefix(self, prefix: u32) -> Result<Self> {
        let longest = bits(self.base);
        ensure!((self.length..=longest).contains(&prefix), "the prefix {prefix} is not one of this network");
        // A row for each network of one address is a row for each address.
        Ok(Self { prefix: (prefix < longest).then_some(prefix), ..self })
    }

    /// The first address of the network that has the row of an address.
    pub(super) fn row(&self, address: IpAddr) -> IpAddr {
        let zeros = bits(address) - self.prefix.unwrap_or(bits(address));
        let first = number(address).checked_shr(zeros).and_then(|high| high.checked_shl(zeros)).unwrap_or(0);
        match address {
            IpAddr::V4(_) => Ipv4Addr::from_bits(u32::try_from(first).expect("32 bits")).into(),
            IpAddr::V6(_) => Ipv6Addr::from_bits(first).into(),
        }
    }

    /// The ending of the first cell in rows of addresses.
    pub(super) fn row_ending(&self) -> String {
        self.prefix.map(|prefix| format!("/{prefix}")).unwrap_or_default()
    }

    /// Replaces the set of files.
    #[must_use]
    pub fn with(self, files: &[File]) -> Self {
        Self { files: File::ALL.map(|file| files.contains(&file)), ..self }
    }

    /// Parses the arguments of an `iptables` command, or a whole `iptables` or `ip6tables` command.
    /// Returns the name of the table and the rule; `None` without `-m traffic`.
    ///
    /// # Errors
    /// When the rule is incomplete, or has other matches or options that select packets.
    pub fn parse(command: &str) -> Result<Option<(String, Self)>> {
        let words: Vec<&str> = command.split_whitespace().collect();
        if !words.windows(2).any(|pair| pair == ["-m", "traffic"]) {
            return Ok(None);
        }
        let ipv6 = words[0] == "ip6tables";
        let from = usize::from(ipv6 || words[0] == "iptables");
        let rule = Self::parse_options(&words[from..], ipv6);
        rule.map(Some).with_context(|| format!("the model does not support the rule: {command}"))
    }

    pub(super) fn has(&self, file: File) -> bool {
        self.files[file as usize]
    }

    /// The files of the rule's table.
    pub fn files(&self) -> impl Iterator<Item = File> + use<> {
        let files = self.files;
        File::ALL.into_iter().filter(move |&file| files[file as usize])
    }

    pub(super) fn counts_connections(&self) -> bool {
        self.has(File::Ipconn) || self.has(File::Portconn)
    }

    /// Whether source and destination are inside the network; `None` when the rule does not count
    /// the packet.
    pub(super) fn counts_packet(&self, source: IpAddr, destination: IpAddr) -> Option<[bool; 2]> {
        let inside @ [out, into] = [source, destination].map(|address| self.inside(address));
        let wanted = match self.internal {
            Internal::Count => out || into,
            Internal::Skip => out != into,
            Internal::Only => out && into,
        };
        wanted.then_some(inside)
    }

    fn inside(&self, address: IpAddr) -> bool {
        let difference = number(self.base) ^ number(address);
        self.base.is_ipv6() == address.is_ipv6()
            && difference.checked_shr(bits(address) - self.length).unwrap_or(0) == 0
    }

    /// Parses the arguments of an `iptables` command into the name of the table and the rule.
    fn parse_options(words: &[&str], ipv6: bool) -> Result<(String, Self)> {
        let mut rule = Self { files: [false; 3], ..Self::ALL_IPV4 };
        let (mut name, mut base, mut length, mut prefix, mut inverted) = (None, None, None, None, false);
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} has no value"));
            match *word {
                "!" => inverted = true,
                "-A" | "-I" => ensure!(*value()? == "PROMISC", "the chain is not PROMISC"),
                "-m" => ensure!(*value()? == "traffic", "it has a match other than traffic"),
                "--traffic" => rule.files[File::Traffic as usize] = true,
                "--ipconn" => rule.files[File::Ipconn as usize] = true,
                "--portconn" => rule.files[File::Portconn as usize] = true,
                "--net" => {
                    let (net, bits) = value()?.split_once('/').context("--net without a length")?;
                    set(&mut base, net.parse()?)?;
                    set(&mut length, bits.parse()?)?;
                }
                "--netbase" => set(&mut base, value()?.parse()?)?,
                "--netmask" => {
                    let mask: IpAddr = value()?.parse()?;
                    ensure!(mask.is_ipv6() == ipv6, "the mask is not one of this family");
                    // iptables accepts only masks without holes.
                    set(&mut length, number(mask).count_ones())?;
                }
                "--prefix" => ensure!(prefix.replace(value()?.parse()?).is_none(), "it has more than one prefix"),
                "--name" => name = Some(value()?.to_string()),
                "--nointernal" => rule.internal = if inverted { Internal::Only } else { Internal::Skip },
                // These do not change the text that the first reader of a table gets.
                "--clearonread" => {}
                "--hashsize" => drop(value()?),
                word => bail!("unknown option {word}"),
            }
        }
        (rule.base, rule.length) = base.zip(length).context("it has no network")?;
        ensure!(rule.base.is_ipv6() == ipv6 && rule.length <= bits(rule.base), "the network is not one of this family");
        if let Some(prefix) = prefix {
            rule = rule.checked_prefix(prefix)?;
        }
        Ok((name.context("it has no name")?, rule))
    }
}

/// Sets a part of the network, which can be set once.
fn set<T>(part: &mut Option<T>, value: T) -> Result<()> {
    ensure!(part.replace(value).is_none(), "it has more than one network");
    Ok(())
}

/// The number of bits in an address.
fn bits(address: IpAddr) -> u32 {
    if address.is_ipv6() { 128 } else { 32 }
}

/// An address as a number.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}
