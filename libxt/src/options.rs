// SPDX-License-Identifier: GPL-2.0

//! The options of a rule: text to parameters and back.

use crate::abi::{self, XtTrafficMtinfo};
use std::{fmt, fmt::Write, net::Ipv4Addr};

/// Why a value is refused: what would be right.
#[derive(Debug, PartialEq, Eq)]
pub struct Invalid(String);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn invalid<T>(why: impl Into<String>) -> Result<T, Invalid> {
    Err(Invalid(why.into()))
}

fn address(text: &str) -> Result<u32, Invalid> {
    match text.parse::<Ipv4Addr>() {
        Ok(address) => Ok(address.into()),
        Err(_) => invalid("an IPv4 address is required, like 193.11.176.0"),
    }
}

fn is_contiguous(mask: u32) -> bool {
    mask.leading_ones() == mask.count_ones()
}

fn mask_of(length: u32) -> u32 {
    u32::MAX.checked_shl(32 - length).unwrap_or(0)
}

fn store(field: &mut [u8; 16], value: u32) {
    *field = [0; 16];
    field[..4].copy_from_slice(&value.to_be_bytes());
}

fn load(field: &[u8; 16]) -> u32 {
    u32::from_be_bytes([field[0], field[1], field[2], field[3]])
}

impl XtTrafficMtinfo {
    /// `--traffic`
    pub fn set_traffic(&mut self) {
        self.count |= abi::COUNT_TRAFFIC;
    }

    /// `[!] --nointernal`
    pub fn set_nointernal(&mut self, inverted: bool) {
        self.internal = match inverted {
            false => abi::INTERNAL_EXCLUDE,
            true => abi::INTERNAL_ONLY,
        };
    }

    /// `--name`
    pub fn set_name(&mut self, text: &str) -> Result<(), Invalid> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        // One byte is for the closing NUL.
        let fits = (1..abi::NAME_SIZE).contains(&text.len());
        if !fits || !text.bytes().all(allowed) {
            return invalid("1 to 31 of the characters A-Z a-z 0-9 _ - are required");
        }
        self.name = [0; abi::NAME_SIZE];
        self.name[..text.len()].copy_from_slice(text.as_bytes());
        Ok(())
    }

    /// `--netbase`
    pub fn set_netbase(&mut self, text: &str) -> Result<(), Invalid> {
        store(&mut self.netbase, address(text)?);
        Ok(())
    }

    /// `--netmask`
    pub fn set_netmask(&mut self, text: &str) -> Result<(), Invalid> {
        match text.parse::<Ipv4Addr>().map(u32::from) {
            Ok(mask) if is_contiguous(mask) => {
                store(&mut self.netmask, mask);
                Ok(())
            }
            Ok(_) => invalid("a mask without holes is required, like 255.255.240.0"),
            Err(_) => invalid("a mask is required, like 255.255.240.0"),
        }
    }

    /// `--net`
    pub fn set_net(&mut self, text: &str) -> Result<(), Invalid> {
        let form = || Invalid("an IPv4 network is required, like 193.11.176.0/20".into());
        let (base, length) = text.split_once('/').ok_or_else(form)?;
        let base = address(base).map_err(|_| form())?;
        let digits = length.bytes().all(|byte| byte.is_ascii_digit());
        let length = length.parse().ok().filter(|length| digits && *length <= 32);
        let mask = mask_of(length.ok_or_else(form)?);
        store(&mut self.netbase, base);
        store(&mut self.netmask, mask);
        self.check_base()
    }

    /// Checks what only shows when all options are known.
    pub fn check_base(&self) -> Result<(), Invalid> {
        let (base, mask) = (load(&self.netbase), load(&self.netmask));
        if base & !mask != 0 {
            let network = Ipv4Addr::from(base & mask);
            let length = mask.count_ones();
            return invalid(format!("host bits are set; the network is {network}/{length}"));
        }
        Ok(())
    }

    /// The options that make this rule, in the order of the help text, each after a blank.
    pub fn to_options(&self) -> String {
        let mut text = String::new();
        if self.count & abi::COUNT_TRAFFIC != 0 {
            text += " --traffic";
        }
        let base = Ipv4Addr::from(load(&self.netbase));
        let length = load(&self.netmask).count_ones();
        let name = self.name.split(|byte| *byte == 0).next().unwrap_or_default();
        let name = String::from_utf8_lossy(name);
        // Writing to a string does not fail.
        let _ = write!(text, " --net {base}/{length} --name {name}");
        text += match self.internal {
            abi::INTERNAL_EXCLUDE => " --nointernal",
            abi::INTERNAL_ONLY => " ! --nointernal",
            _ => "",
        };
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> XtTrafficMtinfo {
        XtTrafficMtinfo {
            netbase: [0; 16],
            netmask: [0; 16],
            name: [0; abi::NAME_SIZE],
            count: 0,
            internal: abi::INTERNAL_ANY,
            clear_on_read: 0,
            reserved: 0,
            hash_size: 0,
        }
    }

    #[test]
    fn a_rule_prints_as_its_options() {
        let mut info = empty();
        info.set_traffic();
        info.set_netmask("255.255.240.0").unwrap();
        info.set_netbase("193.11.176.0").unwrap();
        info.set_nointernal(false);
        info.set_name("RSN").unwrap();
        info.check_base().unwrap();
        assert_eq!(info.to_options(), " --traffic --net 193.11.176.0/20 --name RSN --nointernal");
        info.set_nointernal(true);
        assert!(info.to_options().ends_with(" ! --nointernal"));
    }

    #[test]
    fn both_forms_of_a_network_are_the_same() {
        for length in 0..=32 {
            let (mut cidr, mut pair) = (empty(), empty());
            let mask = mask_of(length);
            let base = Ipv4Addr::from(0xc0a8_ffff & mask);
            cidr.set_net(&format!("{base}/{length}")).unwrap();
            pair.set_netbase(&base.to_string()).unwrap();
            pair.set_netmask(&Ipv4Addr::from(mask).to_string()).unwrap();
            assert_eq!(cidr, pair);
            assert_eq!(load(&cidr.netmask).leading_ones(), length);
        }
    }

    #[test]
    fn bad_networks() {
        let bad = [
            "",
            "/",
            "10.0.0.0",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0/8",
            "10.0.0.0/8/8",
            " 10.0.0.0/8",
            "::/0",
            "localhost/8",
            "10.0.0.0/255.0.0.0",
        ];
        for text in bad {
            let error = empty().set_net(text).unwrap_err();
            assert!(error.0.contains("193.11.176.0/20"), "{text}: {error}");
        }
        let error = empty().set_net("10.0.0.1/8").unwrap_err();
        assert!(error.0.contains("10.0.0.0/8"), "{error}");
    }

    #[test]
    fn bad_masks_and_bases() {
        for text in ["255.0.255.0", "0.0.0.1", "20", "/20", "", "255.255.255.256"] {
            assert!(empty().set_netmask(text).is_err(), "{text}");
        }
        for text in ["10", "10.0.0.0/8", "", "host"] {
            assert!(empty().set_netbase(text).is_err(), "{text}");
        }
        let mut info = empty();
        info.set_netbase("193.11.177.9").unwrap();
        info.set_netmask("255.255.240.0").unwrap();
        let error = info.check_base().unwrap_err();
        assert!(error.0.contains("193.11.176.0/20"), "{error}");
    }

    #[test]
    fn names() {
        let mut info = empty();
        for good in ["a", "RSN", "A-z_09", &"x".repeat(31)] {
            info.set_name(good).unwrap();
            assert!(info.to_options().contains(&format!(" --name {good}")));
        }
        for bad in ["", "a b", "a/b", ".", "..", "a.ipconn", "\u{e4}", &"x".repeat(32)] {
            assert!(info.set_name(bad).is_err(), "{bad}");
        }
    }
}
