// SPDX-License-Identifier: GPL-2.0

//! The match: what a rule does with a packet.

use crate::{
    abi::{self, XtTrafficMtinfo},
    accounting::{packet::Header, params::Params},
    glue::{
        log,
        netns::{Net, PerNetSlot},
        packet::Packet,
        xt_match::{Family, Match},
    },
    tables::{TableRef, Tables},
};
use kernel::prelude::*;

/// A rule with `-m traffic`.
pub(crate) struct Rule {
    table: TableRef,
}

impl Match for Rule {
    const NAME: &'static core::ffi::CStr = abi::MATCH_NAME;
    const REVISION: u8 = abi::REVISION;
    const FAMILY: Family = Family::Ipv4;

    fn new(net: &Net, info: &XtTrafficMtinfo) -> Result<KBox<Self>> {
        let params = Params::from_ipv4(info).map_err(|refusal| {
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
    fn matches(&self, packet: &Packet<'_>) -> bool {
        match Header::from_ipv4(packet.linear()) {
            Some(header) => self.table.count(&header, || packet.wire_len()),
            None => false,
        }
    }
}
