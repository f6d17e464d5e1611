# SPDX-License-Identifier: GPL-2.0-only
# Part of xt-traffic(8): the records of the ports in $RUN/ports. Other parts share the variables:
# shellcheck shell=dash disable=SC2154

# Sets $value to the first line of a file, or to nothing if the file does not exist.
read_value() { # FILE
    value=''
    [ ! -f "$1" ] || read -r value <"$1"
}

recorded_ports() { ls "$RUN/ports" 2>/dev/null; }

# Starts the records of all lines of $ports, and removes what lines that are gone have made. This
# comes before any device is made, so that a device can get the name of another one.
record_ports() {
    local port device kind words status=0
    for port in $(recorded_ports); do
        is_listed "$port" "$ports" || put_back "$port" || status=1
    done
    while read -r port device _ _ kind words; do
        [ -z "$port" ] || begin_record || status=1
    done <<EOF
$ports
EOF
    return $status
}

# Starts the record of a line of $ports, before the port exists. Removes what was made for another
# line with this name. Records of version 0.2.0 have no kind; they are those of ports.
begin_record() {
    local value
    read_note "$port" kind
    if [ -f "$RUN/ports/$port" ] && [ "${value:-port}" != "$kind${words:+ $words}" ]; then
        put_back "$port" || return 1
    fi
    read_note "$port" mirror
    if [ "${value:--}" != "$device" ]; then
        remove_mirror "$port" || return 1
    fi
    mkdir -p "$RUN/ports" &&
        set_note "$port" kind "$kind${words:+ $words}" &&
        set_note "$port" mirror "$device" &&
        set_note "$port" refused ''
}

# Notes which interface the port is. If another one now has its name, the recorded settings are
# discarded.
note_port() { # PORT
    local value index
    read_value "$SYS/$1/ifindex"
    index=$value
    read_note "$1" ifindex
    [ "$value" != "$index" ] || return 0
    {
        grep -E '^(kind|mirror|refused|mirror-index|tunnel-index) ' "$RUN/ports/$1"
        echo "ifindex $index"
    } >"$RUN/record" && mv "$RUN/record" "$RUN/ports/$1"
}

# Records the previous value of a setting, unless it is recorded already.
note() { # PORT KEY VALUE
    local value
    read_note "$1" "$2"
    [ -n "$value" ] || set_note "$@"
}

# Records a value. The file is replaced in one step.
set_note() { # PORT KEY VALUE
    local value
    read_note "$1" "$2"
    [ "$value" != "$3" ] || return 0
    {
        [ ! -f "$RUN/ports/$1" ] || grep -v "^$2 " "$RUN/ports/$1"
        echo "$2 $3"
    } >"$RUN/record" && mv "$RUN/record" "$RUN/ports/$1"
}

# Sets $value to the recorded value, or to nothing if none was recorded.
read_note() { # PORT KEY
    local key noted
    value=''
    [ -f "$RUN/ports/$1" ] || return 0
    while read -r key noted; do
        [ "$key" != "$2" ] || value=$noted
    done <"$RUN/ports/$1"
}
