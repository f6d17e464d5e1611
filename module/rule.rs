// SPDX-License-Identifier: GPL-2.0

//! The match: what a rule does with a packet.

use crate::{
    abi::{self, XtTrafficMtinfo},
    accounting::params::Params,
    glue::{
        log,
        netns::{Net, PerNetSlot},
        packet::SkBuff,
        percpu::{possible_cpus, ThisCpu},
        xt_match::{entry_point, Match, NfProto},
    },
    named::{HasTables, TableRef, Tables},
};
use kernel::prelude::*;

/// A rule with `-m traffic`, of one family. Every packet reads it, on every CPU, as it does what the table has.
#[repr(align(64))]
pub(crate) struct Rule<A: HasTables> {
    table: TableRef<A>,
}

entry_point!(Rule<u32>, ipv4);
entry_point!(Rule<u128>, ipv6);

impl<A: HasTables> Match for Rule<A> {
    const NAME: &'static core::ffi::CStr = abi::MATCH_NAME;
    const REVISION: u8 = abi::REVISION;
    const FAMILY: NfProto = A::NFPROTO;

    fn new(net: &Net, info: &XtTrafficMtinfo) -> Result<KBox<Self>> {
        let params = Params::<A>::from_info(info, possible_cpus()).map_err(|refusal| {
            if log::permitted() {
                pr_info!("rule refused: {refusal}\n");
            }
            EINVAL
        })?;
        let tables = PerNetSlot::<Tables>::get(net).ok_or(ENOENT)?;
        let table = Tables::get(tables.into(), &params)?;
        Ok(KBox::new(Self { table }, GFP_KERNEL_ACCOUNT)?)
    }

    /// Counts the packet. It matches exactly when something was counted.
    #[inline]
    fn matches(&self, packet: SkBuff<'_>, cpu: &ThisCpu) -> bool {
        self.table.count(packet, cpu)
    }
}
