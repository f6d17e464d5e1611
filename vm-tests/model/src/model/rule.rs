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
    internal: Internal,
    files: [bool; 3],
}

impl Rule {
    /// `--traffic` for all IPv4 addresses.
    pub const ALL_IPV4: Self = Self::all(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    /// `--traffic` for all IPv6 addresses.
    pub const ALL_IPV6: Self = Self::all(IpAddr::V6(Ipv6Addr::UNSPECIFIED));

    const fn all(base: IpAddr) -> Self {
        Self { base, length: 0, internal: Internal::Count, files: [true, false, false] }
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
        let rule = Parts::parse(&words[from..]).and_then(|parts| parts.rule(ipv6));
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
        let difference = match (self.base, address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => u128::from(base.to_bits() ^ address.to_bits()),
            (IpAddr::V6(base), IpAddr::V6(address)) => base.to_bits() ^ address.to_bits(),
            _ => return false,
        };
        difference.checked_shr(bits(address) - self.length).unwrap_or(0) == 0
    }
}

/// The options of a rule.
struct Parts<'a> {
    files: Vec<File>,
    net: Option<(&'a str, u32)>,
    base: Option<&'a str>,
    mask: Option<&'a str>,
    name: Option<&'a str>,
    internal: Internal,
}

impl<'a> Parts<'a> {
    fn parse(words: &[&'a str]) -> Result<Self> {
        let mut parts =
            Self { files: vec![], net: None, base: None, mask: None, name: None, internal: Internal::Count };
        let mut words = words.iter().copied();
        let mut inverted = false;
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} has no value"));
            match word {
                "!" => inverted = true,
                "-A" | "-I" => ensure!(value()? == "PROMISC", "the chain is not PROMISC"),
                "-m" => ensure!(value()? == "traffic", "it has a match other than traffic"),
                "--traffic" => parts.files.push(File::Traffic),
                "--ipconn" => parts.files.push(File::Ipconn),
                "--portconn" => parts.files.push(File::Portconn),
                "--net" => {
                    let (base, length) = value()?.split_once('/').context("--net without a length")?;
                    parts.net = Some((base, length.parse()?));
                }
                "--netbase" => parts.base = Some(value()?),
                "--netmask" => parts.mask = Some(value()?),
                "--name" => parts.name = Some(value()?),
                "--nointernal" => parts.internal = if inverted { Internal::Only } else { Internal::Skip },
                // These do not change the text that the first reader of a table gets.
                "--clearonread" => {}
                "--hashsize" => drop(value()?),
                word => bail!("unknown option {word}"),
            }
        }
        Ok(parts)
    }

    fn rule(self, ipv6: bool) -> Result<(String, Rule)> {
        let name = self.name.context("it has no name")?.to_owned();
        let (base, length) = match (self.net, self.base, self.mask) {
            (Some(net), None, None) => net,
            (None, Some(base), Some(mask)) => (base, mask_length(mask.parse()?)),
            _ => bail!("it has no network"),
        };
        let base: IpAddr = base.parse()?;
        ensure!(base.is_ipv6() == ipv6 && length <= bits(base), "the network is not one of this family");
        let files = File::ALL.map(|file| self.files.contains(&file));
        Ok((name, Rule { base, length, internal: self.internal, files }))
    }
}

/// The number of bits in an address.
fn bits(address: IpAddr) -> u32 {
    if address.is_ipv6() { 128 } else { 32 }
}

/// The length of a mask. iptables accepts only masks without holes.
fn mask_length(mask: IpAddr) -> u32 {
    match mask {
        IpAddr::V4(mask) => mask.to_bits().count_ones(),
        IpAddr::V6(mask) => mask.to_bits().count_ones(),
    }
}
