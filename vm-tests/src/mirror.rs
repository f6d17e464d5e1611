// SPDX-License-Identifier: GPL-2.0-only
//! Mirror devices in a guest.

use Layer::{Label, Pppoe, PseudoWire, ServiceTag, Snap, TrustSec, Vlan, VnTag};
use anyhow::Result;
use traffic_model::frames::{DOT1AD, DOT1Q, Layer, QINQ};
use traffic_model::model::Port;
use vm_harness::guest::Guest;

pub use traffic_model::model::{has_ethernet_header, statistics as expected_statistics};
pub use vm_harness::mirror::{add_mirror, statistics};

/// A mirror device.
pub const MIRROR: Port = Port::Mirror { sliced: false };
/// A mirror device that counts packets whose end is missing.
pub const SLICED: Port = Port::Mirror { sliced: true };

/// Headers around a packet, as mirrors have them.
pub fn layer_examples() -> Vec<Vec<Layer>> {
    let (ctag, stag) = (Vlan(DOT1Q, 5), Vlan(DOT1AD, 6));
    vec![
        vec![],
        vec![ctag],
        vec![stag, ctag],
        vec![ctag, ctag],
        vec![Vlan(QINQ[0], 7), ctag],
        vec![stag, stag, ctag],
        vec![Vlan(DOT1Q, 0xe000), ctag],
        vec![ServiceTag, ctag],
        vec![VnTag, ctag],
        vec![TrustSec(1), ctag],
        vec![ctag, TrustSec(1)],
        vec![Label],
        vec![Label; 5],
        vec![Label, Label, PseudoWire { control_word: true }],
        vec![Label, PseudoWire { control_word: false }, ctag],
        vec![Pppoe],
        vec![stag, ctag, Pppoe],
        vec![Snap],
        vec![ctag, Snap],
        vec![stag, Label, PseudoWire { control_word: true }, ctag, Pppoe],
    ]
}

/// Adds a mirror device for port 0 and brings both up.
///
/// # Errors
/// When the guest refuses it.
pub fn open_mirror(guest: &mut Guest) -> Result<()> {
    add_mirror(guest)?;
    guest.open_port(0)
}
