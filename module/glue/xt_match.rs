// SPDX-License-Identifier: GPL-2.0

//! Registration of matches with x_tables. `xt_match.h` is the C half.
//!
//! C header:
//! [`include/linux/netfilter/x_tables.h`](srctree/include/linux/netfilter/x_tables.h)

use super::{
    compat::{
        prelude::*,
        transmute::FromBytes,
        types::ForeignOwnable, //
    },
    net::Net,
    packet::SkBuff,
    percpu::ThisCpu, //
};
use core::{
    ffi::CStr,
    marker::PhantomData, //
};
use kernel::{
    bindings,
    container_of,
    error::{
        from_result,
        to_result, //
    },
    ffi::{
        c_int,
        c_void, //
    },
    types::Opaque, //
};

/// A protocol family that a match can be for.
#[derive(Clone, Copy)]
#[repr(u16)]
pub(crate) enum NfProto {
    /// iptables.
    Ipv4 = bindings::NFPROTO_IPV4 as u16,
    /// ip6tables.
    Ipv6 = bindings::NFPROTO_IPV6 as u16,
}

/// The use of a match in one rule.
///
/// It is made when the rule is inserted. It is dropped when the rule has been removed and no packet
/// can be in it any more.
pub(crate) trait Match: Send + Sync + Sized + 'static {
    /// The parameters, with the layout that user space sends.
    ///
    /// The macro [`from_bytes!`] implements [`FromBytes`] for them.
    type Info: FromBytes;

    /// What all rules of a [`Registration`] share.
    type Context: Send + Sync + 'static;

    /// The name after `-m`.
    const NAME: &'static CStr;
    /// The family of the packets.
    const FAMILY: NfProto;

    /// Checks the parameters of a new rule in `net`. `revision` is that of the [`Registration`].
    ///
    /// # Context
    ///
    /// Process context. Might sleep.
    fn new(
        context: &Self::Context,
        net: &Net,
        revision: u8,
        info: &Self::Info,
    ) -> Result<KBox<Self>>;

    /// Returns whether the rule matches `packet`.
    ///
    /// # Context
    ///
    /// Softirq or process context, on `cpu`, with bottom halves disabled.
    fn matches(&self, packet: SkBuff<'_>, cpu: &ThisCpu) -> bool;
}

/// The memory of a match in a rule: `matchsize` bytes, of which user space sees the parameters.
#[repr(C, align(8))]
pub(crate) struct RuleData<I> {
    /// The parameters.
    info: I,
    /// A pointer from `KBox<M>::into_foreign`, from `checkentry` to `destroy`.
    rule: *mut c_void,
}

impl<I> RuleData<I> {
    /// The size of the parameters in bytes.
    const USER_SIZE: u32 = size_of::<I>() as u32;
    /// The size of all in bytes. x_tables aligns it to 8.
    const SIZE: u32 = {
        assert!(align_of::<Self>() == 8);
        size_of::<Self>() as u32
    };
}

/// Implements [`FromBytes`] for a struct. All of its fields have to be named, and implement
/// [`FromBytes`] themselves.
macro_rules! from_bytes {
    ($type:ident { $($field:ident),+ $(,)? }) => {
        const _: fn(&$type) = |value| {
            fn check<T: $crate::glue::compat::transmute::FromBytes>(_: &T) {}
            let $type { $($field),+ } = value;
            $(check($field);)+
        };

        // SAFETY: The pattern above names all fields, as it would not compile otherwise, and the
        // calls show that each implements `FromBytes`: all bit patterns are valid for it, and it
        // has no interior mutability. So the same is true for the struct.
        unsafe impl $crate::glue::compat::transmute::FromBytes for $type {}
    };
}
pub(crate) use from_bytes;

/// A function that x_tables calls for a packet.
pub(crate) type EntryPoint =
    unsafe extern "C" fn(*const bindings::sk_buff, *mut bindings::xt_action_param) -> bool;

/// A match with a function that x_tables can call. [`entry_point!`] implements it.
///
/// # Safety
///
/// `ENTRY_POINT` must call [`match_packet`] for this type with its own arguments and the number of
/// the CPU, on that CPU, with bottom halves disabled. It must do nothing else.
pub(crate) unsafe trait HasEntryPoint: Match {
    /// The function, which `XT_MATCH_ENTRY_POINT` of `xt_match.h` defines.
    const ENTRY_POINT: EntryPoint;
}

/// Ties a match to the function `$name`, which x_tables calls, and defines `$match`, which that
/// calls. `XT_MATCH_ENTRY_POINT($name, $match)` of `xt_match.h` defines `$name`.
macro_rules! entry_point {
    ($type:ty, $name:ident, $match:ident) => {
        const _: () = {
            use kernel::{
                bindings,
                ffi::c_uint, //
            };

            // C passes the structs by pointers only. Rust has bindings of parts of them.
            #[expect(improper_ctypes)]
            extern "C" {
                fn $name(
                    skb: *const bindings::sk_buff,
                    par: *mut bindings::xt_action_param,
                ) -> bool;
            }

            // SAFETY: `XT_MATCH_ENTRY_POINT` defines `$name` so that it does nothing but call
            // `$match` with its own arguments and the CPU, on that CPU with bottom halves disabled.
            // `$match` calls `match_packet` for this type.
            unsafe impl $crate::glue::xt_match::HasEntryPoint for $type {
                const ENTRY_POINT: $crate::glue::xt_match::EntryPoint = $name;
            }

            /// # Safety
            ///
            /// Only `$name` may call this.
            #[no_mangle]
            unsafe extern "C" fn $match(
                skb: *const bindings::sk_buff,
                par: *mut bindings::xt_action_param,
                cpu: c_uint,
            ) -> bool {
                // SAFETY: The caller is `$name`, by the safety requirements. x_tables has called it
                // for a rule with this match, and it is on `cpu` with bottom halves disabled.
                unsafe { $crate::glue::xt_match::match_packet::<$type>(skb, par, cpu) }
            }
        };
    };
}
pub(crate) use entry_point;

/// Returns whether a rule matches a packet.
///
/// # Safety
///
/// `skb` and `par` must be the arguments that x_tables passes for a rule with a match of a
/// [`Registration<M>`]. This must run on `cpu` with bottom halves disabled.
#[inline]
pub(crate) unsafe fn match_packet<M: Match>(
    skb: *const bindings::sk_buff,
    par: *mut bindings::xt_action_param,
    cpu: u32,
) -> bool {
    // SAFETY: x_tables passes a valid `par`. For a match, `matchinfo` is the variant in use.
    let data = unsafe { (*par).__bindgen_anon_2.matchinfo }.cast::<RuleData<M::Info>>();
    // SAFETY: The data is that of a rule with this match, so it has `RuleData::SIZE` bytes, and
    // `checkentry` has accepted it. Nothing changes it until `destroy`.
    let rule = unsafe { (*data).rule };
    // SAFETY: `checkentry` has put a pointer from `into_foreign` there. x_tables calls `destroy`,
    // which takes it back, only when no packet can be in the rule.
    let rule = unsafe { <KBox<M> as ForeignOwnable>::borrow(rule) };
    // SAFETY: x_tables passes a valid packet at a hook of IP, and it is the packet of this
    // context until the hook returns.
    let packet = unsafe { SkBuff::from_raw(skb) };
    // SAFETY: This is the CPU by the safety requirements. The value is dropped before this function
    // returns.
    let cpu = unsafe { ThisCpu::assume(cpu) };
    rule.matches(packet, &cpu)
}

/// One revision of a match that is registered with x_tables. Dropping it might sleep.
///
/// # Invariants
///
/// `inner` is registered with x_tables.
#[pin_data(PinnedDrop)]
pub(crate) struct Registration<M: HasEntryPoint> {
    #[pin]
    inner: Opaque<bindings::xt_match>,
    context: M::Context,
    _match: PhantomData<M>,
}

// SAFETY: Any thread may unregister a match, and `M::Context` is `Send`.
unsafe impl<M: HasEntryPoint> Send for Registration<M> {}
// SAFETY: There are no methods with a shared reference. Callbacks use only `context`, which is
// `Sync`.
unsafe impl<M: HasEntryPoint> Sync for Registration<M> {}

impl<M: HasEntryPoint> Registration<M> {
    /// Registers `M` with one revision of [`Match::Info`]. All revisions must have the same layout.
    /// Rules keep `module` loaded, and share `context`.
    ///
    /// # Context
    ///
    /// Process context. Might sleep.
    pub(crate) fn new(
        module: &'static ThisModule,
        revision: u8,
        context: M::Context,
    ) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            context,
            _match: PhantomData,
            // The last field: x_tables can call `checkentry` at once.
            inner <- Opaque::try_ffi_init(move |slot: *mut bindings::xt_match| {
                let xt_match = Self::xt_match(module, revision)?;
                // SAFETY: The initializer passes a pointer that is valid for writes.
                unsafe { slot.write(xt_match) };
                // SAFETY: `slot` is filled in, and the functions in it are for `M`. It does not
                // move, as it is pinned, and `drop` unregisters it before it is freed.
                // INVARIANT: If this succeeds, `inner` is registered.
                to_result(unsafe { bindings::xt_register_match(slot) })
            }),
        })
    }

    fn xt_match(module: &'static ThisModule, revision: u8) -> Result<bindings::xt_match> {
        let mut inner = bindings::xt_match {
            revision,
            match_: Some(M::ENTRY_POINT),
            checkentry: Some(Self::checkentry),
            destroy: Some(Self::destroy),
            me: module.as_ptr(),
            matchsize: RuleData::<M::Info>::SIZE,
            usersize: RuleData::<M::Info>::USER_SIZE,
            family: M::FAMILY as u16,
            ..Default::default()
        };
        let name = M::NAME.to_bytes_with_nul();
        let place: &mut [u8] = inner.name.get_mut(..name.len()).ok_or(EINVAL)?;
        place.copy_from_slice(name);
        Ok(inner)
    }

    /// # Safety
    ///
    /// x_tables must call this, for a rule that is being inserted and has a match of a
    /// `Registration<M>`.
    unsafe extern "C" fn checkentry(par: *const bindings::xt_mtchk_param) -> c_int {
        from_result(|| {
            // SAFETY: x_tables passes a valid `par`.
            let inner = unsafe { (*par).match_ }.cast_mut();
            let inner = inner.cast::<Opaque<bindings::xt_match>>();
            // SAFETY: `match_` is the match of the rule, so by the safety requirements it is the
            // field `inner` of a `Registration<M>`.
            let registration = unsafe { container_of!(inner, Self, inner) };
            // SAFETY: The field was initialized before the match was registered. The registration
            // is not dropped during the call, because x_tables holds a reference to the module,
            // which owns it.
            let context = unsafe { &(*registration).context };
            // SAFETY: x_tables passes a valid `par`, whose `match_` is valid for the same reason,
            // and nothing changes the revision of a registered match.
            let revision = unsafe { (*(*par).match_).revision };
            // SAFETY: x_tables passes a valid `par`.
            let net = unsafe { (*par).net };
            // SAFETY: The namespace is that of the socket by which the rule is inserted. The socket
            // holds a reference to it, at least until the call returns.
            let net = unsafe { Net::from_raw(net) };
            // SAFETY: x_tables passes a valid `par`.
            let data = unsafe { (*par).matchinfo }.cast::<RuleData<M::Info>>();
            // SAFETY: x_tables has checked that the data has `matchsize` bytes, which is
            // `RuleData::SIZE`, and aligns it to 8. It is the kernel's copy, which nothing changes
            // during the call. All bit patterns are valid for `M::Info`, as it is `FromBytes`.
            let info = unsafe { &(*data).info };
            let rule = M::new(context, net, revision, info)?.into_foreign();
            // SAFETY: The data is valid for writes, see above. There is no reference to this field,
            // and no packet is in the rule yet.
            unsafe { (*data).rule = rule };
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// x_tables must call this once for a rule that [`checkentry`](Self::checkentry) has accepted,
    /// when no packet can be in it any more.
    unsafe extern "C" fn destroy(par: *const bindings::xt_mtdtor_param) {
        // SAFETY: x_tables passes a valid `par`.
        let data = unsafe { (*par).matchinfo }.cast::<RuleData<M::Info>>();
        // SAFETY: The data is that of a rule with this match, so it has `RuleData::SIZE` bytes.
        let rule = unsafe { (*data).rule };
        // SAFETY: `checkentry` has accepted the rule, so it has put a pointer from `into_foreign`
        // there. By the safety requirements no packet borrows it, and it is taken back once.
        let rule = unsafe { KBox::<M>::from_foreign(rule) };
        drop(rule);
    }
}

#[pinned_drop]
impl<M: HasEntryPoint> PinnedDrop for Registration<M> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariants the match is registered. No rule has it, because rules
        // hold a reference to the module.
        unsafe { bindings::xt_unregister_match(self.inner.get()) };
    }
}
