/* SPDX-License-Identifier: GPL-2.0-only */

/* What src/bindings.rs is made from: see `cargo xtask build-libxt --bindings`. */
#include <stdio.h>
#include <xtables.h>
