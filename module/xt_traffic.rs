// SPDX-License-Identifier: GPL-2.0

//! The match `traffic`: bytes per address of the traffic on a mirror port.
//!
//! Three layers, from the inside out: [`accounting`] is pure and knows nothing of the kernel,
//! [`glue`] is all that touches the kernel's C side, and what is left in this file and its
//! neighbours ties the two together: [`rule`] is the match, [`tables`] the tables by name.

pub mod abi;
pub mod accounting;
mod glue;
mod rule;
mod tables;

use glue::{
    netns::{PerNetRegistration, PerNetSlot},
    xt_match::Registration,
};
use kernel::prelude::*;

module! {
    type: XtTraffic,
    name: "xt_traffic",
    authors: ["xt_traffic maintainers"],
    description: "Xtables: traffic accounting per address",
    license: "GPL",
    alias: ["ipt_traffic"],
}

/// The loaded module. The match goes before what its rules need.
struct XtTraffic {
    _ipv4: Registration<rule::Rule>,
    _namespaces: PerNetRegistration<tables::Tables>,
}

impl kernel::Module for XtTraffic {
    fn init(module: &'static ThisModule) -> Result<Self> {
        let namespaces = PerNetSlot::<tables::Tables>::register()?;
        Ok(Self { _ipv4: Registration::new(module)?, _namespaces: namespaces })
    }
}
