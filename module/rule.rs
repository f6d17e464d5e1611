// SPDX-License-Identifier: GPL-2.0

//! The match `traffic`.

use crate::{
    abi::{
        self,
        RuleInfo,
        XtTrafficMtinfo, //
    },
    accounting::params::Params,
    glue::{
        compat::cpu::nr_cpu_ids,
        net::{
            net_info_ratelimited,
            Net, //
        },
        packet::SkBuff,
        percpu::ThisCpu,
        pernet::PerNetRegistration,
        xt_match::{
            entry_point,
            from_bytes,
            Match,
            NfProto,
            RuleData, //
        },
    },
    table_lists::ListedFamily,
    tables::{
        TableRef,
        Tables, //
    },
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// A rule with `-m traffic`, of one family.
///
/// All CPUs read it for each packet, so it shares no cache line with data that is written.
#[repr(align(64))]
pub(crate) struct Rule<A: ListedFamily> {
    table: TableRef<A>,
}

from_bytes!(XtTrafficMtinfo {
    netbase,
    netmask,
    name,
    count,
    internal,
    clear_on_read,
    shared_bits,
    hash_size,
});

// User space sends `RuleInfo`, whose last field is the kernel's.
const _: () = assert!(size_of::<RuleData<XtTrafficMtinfo>>() == size_of::<RuleInfo>());

entry_point!(Rule<u32>, xt_traffic_match_ipv4, xt_traffic_count_ipv4);
entry_point!(Rule<u128>, xt_traffic_match_ipv6, xt_traffic_count_ipv6);

impl<A: ListedFamily> Match for Rule<A> {
    type Info = XtTrafficMtinfo;
    type Context = Arc<PerNetRegistration<Tables>>;

    const NAME: &'static core::ffi::CStr = abi::MATCH_NAME;
    const FAMILY: NfProto = A::NFPROTO;

    fn new(
        namespaces: &Self::Context,
        net: &Net,
        revision: u8,
        info: &XtTrafficMtinfo,
    ) -> Result<KBox<Self>> {
        let params = Params::<A>::from_info(revision, info, nr_cpu_ids()).map_err(|refusal| {
            net_info_ratelimited!("rule refused: {refusal}\n");
            EINVAL
        })?;
        let tables = namespaces.get(net).ok_or(ENOENT)?;
        let table = Tables::get(tables, &params)?;
        Ok(KBox::new(Self { table }, GFP_KERNEL_ACCOUNT)?)
    }

    /// Counts the packet. It matches if anything was counted.
    #[inline]
    fn matches(&self, packet: SkBuff<'_>, cpu: &ThisCpu) -> bool {
        self.table.count(packet, cpu)
    }
}
