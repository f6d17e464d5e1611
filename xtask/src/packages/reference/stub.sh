#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Replaces a program that changes the system: logs its name and arguments and does nothing. Only
# `dpkg --compare-versions` runs.
name=${0##*/}
if [ "$name $1" = "dpkg --compare-versions" ]; then
    exec /usr/bin/dpkg "$@"
fi
{
    printf '%s' "$name"
    for word; do printf ' [%s]' "$word"; done
    echo
} >>"$DRY_RUN/log"
