// SPDX-License-Identifier: GPL-2.0
//! What a rule asks for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, bail, ensure};

/// What `--nointernal` says about packets with both ends inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Internal {
    /// The option is not there: they count like all others.
    Count,
    /// `--nointernal`: they do not count.
    Skip,
    /// `! --nointernal`: nothing else counts.
    Only,
}

/// The files that a table can have.
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
    /// All of them, in the order of their names.
    pub const ALL: [Self; 3] = [Self::Traffic, Self::Ipconn, Self::Portconn];

    /// The name of a table's file.
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
    /// `--traffic` for the network `base/length`.
    ///
    /// # Panics
    /// When the length is more than 32.
    pub fn new(base: Ipv4Addr, length: u32, internal: Internal) -> Self {
        assert!(length <= 32, "an IPv4 prefix of {length} bits");
        Self { base: base.into(), length, internal, files: [true, false, false] }
    }

    /// `--traffic` for an IPv6 network.
    ///
    /// # Panics
    /// When the length is more than 128.
    pub fn new6(base: Ipv6Addr, length: u32, internal: Internal) -> Self {
        assert!(length <= 128, "an IPv6 prefix of {length} bits");
        Self { base: base.into(), length, internal, files: [true, false, false] }
    }

    /// `--traffic` for every IPv4 address there is.
    pub fn everything() -> Self {
        Self::new(Ipv4Addr::UNSPECIFIED, 0, Internal::Count)
    }

    /// `--traffic` for every IPv6 address there is.
    pub fn everything6() -> Self {
        Self::new6(Ipv6Addr::UNSPECIFIED, 0, Internal::Count)
    }

    /// The same rule with other files.
    #[must_use]
    pub fn with(self, files: &[File]) -> Self {
        Self { files: File::ALL.map(|file| files.contains(&file)), ..self }
    }

    /// Reads what [`crate::replay`] takes for a rule, and gives it with its name; none when the command has no
    /// `-m traffic`.
    ///
    /// # Errors
    /// When the rule is not whole, or has something else in it that decides which packets it sees.
    pub fn parse(command: &str) -> Result<Option<(String, Self)>> {
        let words: Vec<&str> = command.split_whitespace().collect();
        if !words.windows(2).any(|pair| pair == ["-m", "traffic"]) {
            return Ok(None);
        }
        let six = words[0] == "ip6tables";
        let from = usize::from(six || words[0] == "iptables");
        let rule = Parts::of(&words[from..]).and_then(|parts| parts.rule(six));
        rule.map(Some).with_context(|| format!("the model cannot take the rule: {command}"))
    }

    pub(super) fn has(&self, file: File) -> bool {
        self.files[file as usize]
    }

    /// The files that the rule's table has.
    pub fn files(&self) -> impl Iterator<Item = File> + use<> {
        let files = self.files;
        File::ALL.into_iter().filter(move |&file| files[file as usize])
    }

    pub(super) fn looks_for_connections(&self) -> bool {
        self.has(File::Ipconn) || self.has(File::Portconn)
    }

    /// Which of the two ends is inside; none when the packet is not for this rule.
    pub(super) fn accounts_for(&self, source: IpAddr, destination: IpAddr) -> Option<[bool; 2]> {
        let inside @ [out, into] = [source, destination].map(|address| self.inside(address));
        let wanted = match self.internal {
            Internal::Count => out || into,
            Internal::Skip => out != into,
            Internal::Only => out && into,
        };
        wanted.then_some(inside)
    }

    fn inside(&self, address: IpAddr) -> bool {
        match (self.base, address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                let differ = base.to_bits() ^ address.to_bits();
                differ.checked_shr(32 - self.length).unwrap_or(0) == 0
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                let differ = base.to_bits() ^ address.to_bits();
                differ.checked_shr(128 - self.length).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// A rule's options as they are read.
struct Parts<'a> {
    files: Vec<File>,
    net: Option<(&'a str, u32)>,
    base: Option<&'a str>,
    mask: Option<&'a str>,
    name: Option<&'a str>,
    internal: Internal,
}

impl<'a> Parts<'a> {
    fn of(words: &[&'a str]) -> Result<Self> {
        let mut parts =
            Self { files: vec![], net: None, base: None, mask: None, name: None, internal: Internal::Count };
        let mut words = words.iter().copied();
        let mut inverted = false;
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} has no value"));
            match word {
                "!" => inverted = true,
                "-A" | "-I" => ensure!(value()? == "PROMISC", "it is in another chain"),
                "-m" => ensure!(value()? == "traffic", "it has another match"),
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
                // Says how the table is kept, and nothing of what is in it when it is read once.
                "--clearonread" => {}
                "--hashsize" => drop(value()?),
                word => bail!("what is {word}?"),
            }
        }
        Ok(parts)
    }

    fn rule(self, six: bool) -> Result<(String, Rule)> {
        let name = self.name.context("it has no name")?.to_owned();
        let (base, length) = match (self.net, self.base, self.mask) {
            (Some(net), None, None) => net,
            (None, Some(base), Some(mask)) => (base, ones(mask.parse()?)),
            _ => bail!("it has no network"),
        };
        let base: IpAddr = base.parse()?;
        let limit = if six { 128 } else { 32 };
        ensure!(base.is_ipv6() == six && length <= limit, "the network is of another family");
        let files = File::ALL.map(|file| self.files.contains(&file));
        Ok((name, Rule { base, length, internal: self.internal, files }))
    }
}

/// A mask's length. It has no holes: iptables takes no other.
fn ones(mask: IpAddr) -> u32 {
    match mask {
        IpAddr::V4(mask) => mask.to_bits().count_ones(),
        IpAddr::V6(mask) => mask.to_bits().count_ones(),
    }
}
