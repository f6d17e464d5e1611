/* SPDX-License-Identifier: GPL-2.0-only */

/* The input of `cargo xtask build-libxt --bindings`, which generates src/bindings.rs. */
#include <stdio.h>
#include <xtables.h>
