// SPDX-License-Identifier: GPL-2.0

//! Registration of a match with x_tables.
//!
//! C header: `include/linux/netfilter/x_tables.h`

use super::{
    netns::Net,
    packet::SkBuff,
    percpu::{BhOff, BottomHalves},
};
use crate::abi::{RuleInfo, XtTrafficMtinfo};
use core::{marker::PhantomData, ptr};
use kernel::{
    bindings,
    error::{from_result, to_result},
    ffi::c_int,
    prelude::*,
    types::{ForeignOwnable, Opaque},
};

/// A family that a match can be for.
#[derive(Clone, Copy)]
#[repr(u16)]
pub(crate) enum NfProto {
    /// iptables.
    Ipv4 = bindings::NFPROTO_IPV4 as u16,
    /// ip6tables.
    Ipv6 = bindings::NFPROTO_IPV6 as u16,
}

/// A rule's use of a match: made when the rule is inserted, dropped when it is gone and no packet
/// can be on its way through it any more.
pub(crate) trait Match: Send + Sync + Sized + 'static {
    /// What follows `-m`.
    const NAME: &'static core::ffi::CStr;
    /// The revision of the parameters' layout.
    const REVISION: u8;
    /// The family that it is for.
    const FAMILY: NfProto;

    /// Checks the parameters of a new rule in `net`. May sleep.
    fn new(net: &Net, info: &XtTrafficMtinfo) -> Result<KBox<Self>>;

    /// Does `packet` match? Called in the packet path.
    fn matches(&self, packet: &SkBuff<'_>, bottom_halves: BottomHalves) -> bool;
}

/// A registered match.
///
/// # Invariants
///
/// `inner` is registered with x_tables.
pub(crate) struct Registration<M: Match> {
    inner: Pin<KBox<Opaque<bindings::xt_match>>>,
    _match: PhantomData<M>,
}

// SAFETY: There is nothing to do with a registration but drop it, which any thread may.
unsafe impl<M: Match> Send for Registration<M> {}
// SAFETY: As above.
unsafe impl<M: Match> Sync for Registration<M> {}

impl<M: Match> Registration<M> {
    /// Registers `M`. Rules hold `module` while they use it.
    pub(crate) fn new(module: &'static ThisModule) -> Result<Self> {
        let mut inner = bindings::xt_match {
            revision: M::REVISION,
            match_: Some(Self::match_packet),
            checkentry: Some(Self::checkentry),
            destroy: Some(Self::destroy),
            me: module.as_ptr(),
            matchsize: size_of::<RuleInfo>() as u32,
            usersize: size_of::<XtTrafficMtinfo>() as u32,
            family: M::FAMILY as u16,
            ..Default::default()
        };
        let name = M::NAME.to_bytes_with_nul();
        let place: &mut [u8] = inner.name.get_mut(..name.len()).ok_or(EINVAL)?;
        place.copy_from_slice(name);
        let inner = KBox::pin(Opaque::new(inner), GFP_KERNEL)?;
        // SAFETY: `inner` is filled in and stays where it is till `drop` unregisters it.
        to_result(unsafe { bindings::xt_register_match(inner.get()) })?;
        Ok(Self { inner, _match: PhantomData })
    }

    unsafe extern "C" fn match_packet(skb: *const bindings::sk_buff, par: *mut bindings::xt_action_param) -> bool {
        // SAFETY: x_tables passes a valid packet at a hook of IP, with `matchinfo` as `checkentry`
        // left it; `kernel` is an `M` until `destroy`, which no packet is concurrent with.
        unsafe {
            let info = (*par).__bindgen_anon_2.matchinfo.cast::<RuleInfo>();
            let rule = <KBox<M> as ForeignOwnable>::borrow((*info).kernel as *mut _);
            rule.matches(&SkBuff::from_raw(skb), bottom_halves(par))
        }
    }

    unsafe extern "C" fn checkentry(par: *const bindings::xt_mtchk_param) -> c_int {
        from_result(|| {
            // SAFETY: `matchinfo` is the kernel's own copy of `matchsize` bytes, with the
            // alignment of 8 that x_tables gives; every bit pattern is a `RuleInfo`.
            let info = unsafe { (*par).matchinfo.cast::<RuleInfo>() };
            // SAFETY: As above, and the namespace is valid during the call.
            let rule = unsafe { M::new(Net::from_raw((*par).net), &(*info).user)? };
            // SAFETY: As above; nobody else looks at the rule yet.
            unsafe { ptr::addr_of_mut!((*info).kernel).write(rule.into_foreign() as u64) };
            Ok(0)
        })
    }

    unsafe extern "C" fn destroy(par: *const bindings::xt_mtdtor_param) {
        // SAFETY: Called once for a `matchinfo` that `checkentry` has accepted, when no packet can
        // be in `match_packet` with it any more.
        drop(unsafe {
            let info = (*par).matchinfo.cast::<RuleInfo>();
            KBox::<M>::from_foreign((*info).kernel as *mut _)
        });
    }
}

/// What is known about bottom halves while `match_packet` runs.
///
/// # Safety
///
/// `par` must be what `match_packet` was called with, and the result must be dropped before it returns.
#[inline]
unsafe fn bottom_halves(par: *const bindings::xt_action_param) -> BottomHalves {
    // SAFETY: The hook's state is valid during the call.
    let hook = unsafe { (*(*par).state).hook };
    if u32::from(hook) != bindings::nf_inet_hooks_NF_INET_PROMISC {
        // A task's packet, or one that came back from a queue.
        return BottomHalves::Unknown;
    }
    // SAFETY: The hook is a part of receiving, which runs with bottom halves off. Nothing comes to it from elsewhere:
    // its packets are never queued.
    BottomHalves::Off(unsafe { BhOff::assume() })
}

impl<M: Match> Drop for Registration<M> {
    fn drop(&mut self) {
        // SAFETY: By the type's invariant.
        unsafe { bindings::xt_unregister_match(self.inner.get()) };
    }
}
