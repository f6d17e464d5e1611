// SPDX-License-Identifier: GPL-2.0

//! The match `traffic`: bytes and connections per address, of the traffic on a mirror port.
//!
//! There are three layers. [`accounting`] uses nothing but `core`. [`glue`] has safe interfaces to
//! the kernel's C side. The files beside this one use both: [`rule`] is the match, [`tables`] are
//! the tables of a network namespace, which [`table_lists`] lists by name, [`per_cpu_tables`] are
//! the tables of one name, [`files`] and [`stats`] are what users read, and [`platform`] is what
//! the accounting needs from the kernel for that.

pub mod abi;
pub mod accounting;
pub mod atomic;
mod files;
mod glue;
mod per_cpu_tables;
mod platform;
mod rule;
mod stats;
mod table_lists;
mod tables;

use glue::{
    compat::prelude::*,
    pernet::PerNetRegistration,
    xt_match::{
        HasEntryPoint,
        Registration, //
    },
};
use kernel::sync::Arc;
use rule::Rule;
use table_lists::ListedFamily;
use tables::Tables;

module! {
    type: XtTraffic,
    name: "xt_traffic",
    authors: ["xt_traffic maintainers"],
    description: "Xtables: traffic accounting per address",
    license: "GPL",
    alias: ["ipt_traffic", "ip6t_traffic"],
}

/// The match of one family, in all revisions.
type Revisions<A> = [Pin<KBox<Registration<Rule<A>>>>; abi::REVISIONS.len()];

/// The loaded module. Each match has a reference to the registration of namespaces.
struct XtTraffic {
    _ipv4: Revisions<u32>,
    _ipv6: Revisions<u128>,
}

fn register<A: ListedFamily>(
    module: &'static ThisModule,
    namespaces: &Arc<PerNetRegistration<Tables>>,
) -> Result<Revisions<A>>
where
    Rule<A>: HasEntryPoint<Context = Arc<PerNetRegistration<Tables>>>,
{
    let [zero, one] = abi::REVISIONS.map(|revision| {
        let registration = Registration::new(module, revision, namespaces.clone());
        KBox::pin_init(registration, GFP_KERNEL)
    });
    Ok([zero?, one?])
}

impl kernel::Module for XtTraffic {
    fn init(module: &'static ThisModule) -> Result<Self> {
        let namespaces = Arc::new(PerNetRegistration::new()?, GFP_KERNEL)?;
        Ok(Self {
            _ipv4: register(module, &namespaces)?,
            _ipv6: register(module, &namespaces)?,
        })
    }
}
