// SPDX-License-Identifier: GPL-2.0

//! Registration of a match with x_tables. `xt_match.c` is the other half.
//!
//! C header: `include/linux/netfilter/x_tables.h`

use super::{netns::Net, packet::SkBuff, percpu::ThisCpu};
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

    /// Does `packet` match? Called in the packet path, on `cpu`.
    fn matches(&self, packet: SkBuff<'_>, cpu: &ThisCpu) -> bool;
}

/// A function that x_tables calls for a packet.
pub(crate) type EntryPoint =
    unsafe extern "C" fn(*const bindings::sk_buff, *mut bindings::xt_action_param) -> bool;

/// A match that packets find.
///
/// # Safety
///
/// `ENTRY_POINT` must do nothing with its arguments but call [`match_packet`] for this type with them, and
/// with the CPU that it runs on, bottom halves off.
pub(crate) unsafe trait HasEntryPoint: Match {
    /// A function in `xt_match.c`.
    const ENTRY_POINT: EntryPoint;
}

/// Ties a match to `xt_match.c`: x_tables calls `xt_traffic_match_` with the name of the family, in C, and that calls
/// `xt_traffic_count_` with the same name, made here.
macro_rules! entry_point {
    ($match:ty, $family:ident) => {
        kernel::macros::paste! {
            const _: () = {
                use kernel::{bindings, ffi::c_uint};

                // Only pointers to the kernel's own types, some of which are nothing to Rust.
                #[allow(improper_ctypes)]
                extern "C" {
                    fn [<xt_traffic_match_ $family>](
                        skb: *const bindings::sk_buff,
                        par: *mut bindings::xt_action_param,
                    ) -> bool;
                }

                // SAFETY: It does nothing but call the function below as it is to be called.
                unsafe impl $crate::glue::xt_match::HasEntryPoint for $match {
                    const ENTRY_POINT: $crate::glue::xt_match::EntryPoint = [<xt_traffic_match_ $family>];
                }

                #[no_mangle]
                unsafe extern "C" fn [<xt_traffic_count_ $family>](
                    skb: *const bindings::sk_buff,
                    par: *mut bindings::xt_action_param,
                    cpu: c_uint,
                ) -> bool {
                    // SAFETY: The function above has its arguments from x_tables, and is on `cpu` with bottom halves off.
                    unsafe { $crate::glue::xt_match::match_packet::<$match>(skb, par, cpu) }
                }
            };
        }
    };
}
pub(crate) use entry_point;

/// Asks a rule's match about a packet.
///
/// # Safety
///
/// `skb` and `par` must be what x_tables passes for a rule with match `M`, and this must run on `cpu` with bottom
/// halves off.
#[inline]
pub(crate) unsafe fn match_packet<M: Match>(
    skb: *const bindings::sk_buff,
    par: *mut bindings::xt_action_param,
    cpu: u32,
) -> bool {
    // SAFETY: x_tables passes a valid packet at a hook of IP, with `matchinfo` as `checkentry`
    // left it; `kernel` is an `M` until `destroy`, which no packet is concurrent with. The rest is as promised.
    unsafe {
        let info = (*par).__bindgen_anon_2.matchinfo.cast::<RuleInfo>();
        let rule = <KBox<M> as ForeignOwnable>::borrow((*info).kernel as *mut _);
        rule.matches(SkBuff::from_raw(skb), &ThisCpu::assume(cpu))
    }
}

/// A registered match.
///
/// # Invariants
///
/// `inner` is registered with x_tables.
pub(crate) struct Registration<M: HasEntryPoint> {
    inner: Pin<KBox<Opaque<bindings::xt_match>>>,
    _match: PhantomData<M>,
}

// SAFETY: There is nothing to do with a registration but drop it, which any thread may.
unsafe impl<M: HasEntryPoint> Send for Registration<M> {}
// SAFETY: As above.
unsafe impl<M: HasEntryPoint> Sync for Registration<M> {}

impl<M: HasEntryPoint> Registration<M> {
    /// Registers `M`. Rules hold `module` while they use it.
    pub(crate) fn new(module: &'static ThisModule) -> Result<Self> {
        let mut inner = bindings::xt_match {
            revision: M::REVISION,
            match_: Some(M::ENTRY_POINT),
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
        Ok(Self {
            inner,
            _match: PhantomData,
        })
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

impl<M: HasEntryPoint> Drop for Registration<M> {
    fn drop(&mut self) {
        // SAFETY: By the type's invariant.
        unsafe { bindings::xt_unregister_match(self.inner.get()) };
    }
}
