#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Stands in for a program that changes a system: notes its name and arguments. Only a question about
# versions is answered.
name=${0##*/}
if [ "$name $1" = "dpkg --compare-versions" ]; then
    exec /usr/bin/dpkg "$@"
fi
{
    printf '%s' "$name"
    for word; do printf ' [%s]' "$word"; done
    echo
} >>"$STAGE/calls"
