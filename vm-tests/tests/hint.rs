// SPDX-License-Identifier: GPL-2.0-only
//! Without the feature `qemu`, `cargo test` runs only this.

fn main() {
    if !cfg!(feature = "qemu") {
        println!("tests in QEMU were not run: cargo xtask vm-test runs them");
    }
}
