// SPDX-License-Identifier: GPL-2.0

//! The match `traffic`: bytes and connections per address of the traffic on a mirror port.
//!
//! Three layers, from the inside out: [`accounting`] is pure and knows nothing of the kernel,
//! [`glue`] is all that touches the kernel's C side, and what is left in this file and its
//! neighbours ties the two together: [`rule`] is the match, [`named`] the tables by name,
//! [`counted`] what a table counts, and [`files`] and [`stats`] what there is to read about it.

pub mod abi;
pub mod accounting;
mod atomic;
mod counted;
mod files;
mod glue;
mod named;
mod rule;
mod sort;
mod stats;

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
    alias: ["ipt_traffic", "ip6t_traffic"],
}

/// The loaded module. The matches go before what their rules need.
struct XtTraffic {
    _ipv4: Registration<rule::Rule<u32>>,
    _ipv6: Registration<rule::Rule<u128>>,
    _namespaces: PerNetRegistration<named::Tables>,
}

impl kernel::Module for XtTraffic {
    fn init(module: &'static ThisModule) -> Result<Self> {
        let namespaces = PerNetSlot::<named::Tables>::register()?;
        Ok(Self {
            _ipv4: Registration::new(module)?,
            _ipv6: Registration::new(module)?,
            _namespaces: namespaces,
        })
    }
}
