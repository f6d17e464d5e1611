# SPDX-License-Identifier: GPL-2.0-only
# Part of xt-traffic(8): the rules.
# shellcheck shell=sh disable=SC3043,SC2086,SC2046,SC2015,SC2034,SC2153,SC2154

# Sets $wanted from the configuration: for each rule TOOL CHAIN WORDS... TOOL names the back end that `iptables`
# stands for now, so that a rule is removed with the tool that added it.
want() {
    local chain port family options iptables ip6tables
    wanted=''
    [ -n "$tables" ] || return 0
    iptables=$(tool iptables) && ip6tables=$(tool ip6tables) || exit 1
    while read -r _ _ family options; do
        [ -n "$family" ] || continue
        [ "$family" = iptables ] && family=$iptables || family=$ip6tables
        for chain in $chains; do
            for port in $(first_words "$ports"); do
                wanted="$wanted$family $chain -i $port -m traffic $options$NL"
            done
        done
    done <<EOF
$tables
EOF
}

tool() { # iptables|ip6tables
    local version
    version=$("$1" -V) || die 1 "$1 does not work"
    case $version in
        *'(legacy)'*) echo "$1-legacy" ;;
        *) echo "$1-nft" ;;
    esac
}

# Sets what a rule consists of: $tool, $chain, $words for all after them, and of these $port, $match for what belongs
# to the table, and its $name.
take_apart() { # RULE
    tool=${1%% *}
    words=${1#* }
    chain=${words%% *}
    words=${words#* }
    port=${words#-i }
    port=${port%% *}
    match=${words#* -m traffic }
    name=${match#* --name }
    name=${name%% *}
}

# Sets $action. A rule is added behind what is in PROMISC, so that the box's own rules there can take frames out. In the
# other chains it is the first: the verdict of a firewall must not hide frames from it.
action_for() { # add|delete|find CHAIN
    case $1$2 in
        addPROMISC) action=-A ;;
        add*) action=-I ;;
        delete*) action=-D ;;
        find*) action=-C ;;
    esac
}

# Does something with a rule; $complaint is what the tool said.
change() { # add|delete|find RULE
    local action tool chain words port match name
    take_apart "$2"
    action_for "$1" "$chain"
    try "$tool" -w $action "$chain" $words
}

# Runs a command, and sets $complaint to what it said, in one line and without the advice to ask for help.
try() { # COMMAND...
    local said line status
    said=$("$@" 2>&1 </dev/null)
    status=$?
    complaint=''
    while read -r line; do
        case $line in '' | 'Try `'*) continue ;; esac
        complaint="${complaint:+$complaint; }$line"
    done <<EOF
$said
EOF
    return $status
}

# Sets $origin to where a rule comes from, for messages.
origin_of() { # RULE
    local tool chain words port match name number line
    take_apart "$1"
    origin="table $name"
    while read -r number line _; do
        [ "$line" != "$name" ] || origin="$CONF:$number: table $name"
    done <<EOF
$tables
EOF
}

# Sets $missing to those of $wanted that are not there. The tools look at all options on the way, before anything is
# changed.
find_missing() {
    local rule origin
    missing=''
    while read -r rule; do
        [ -n "$rule" ] || continue
        change find "$rule"
        case $? in
            0) ;;
            2)
                origin_of "$rule"
                die $BAD_CONF "$origin: $complaint"
                ;;
            *) missing="$missing$rule$NL" ;;
        esac
    done <<EOF
$wanted
EOF
}

# Sets $installed to the rules in the record.
load_record() {
    local rule
    installed=''
    [ -f "$RUN/rules" ] || return 0
    while read -r rule; do
        installed="$installed$rule$NL"
    done <"$RUN/rules"
}

save_record() {
    printf '%s' "$installed" >"$RUN/rules" || die 1 "cannot write $RUN/rules"
}

add_rule() { # RULE
    if ! is_listed "$1" "$installed"; then
        installed="$installed$1$NL"
        save_record
    fi
    change add "$1"
}

# Removes a rule that is still there. It stays in the record until all is done; nobody is hurt by that.
remove_rule() { # RULE
    if change find "$1"; then
        change delete "$1" || { warn "$complaint"; return 1; }
    fi
    forget_rule "$1"
}

forget_rule() { # RULE
    local rule rest=''
    while read -r rule; do
        [ -z "$rule" ] || [ "$rule" = "$1" ] || rest="$rest$rule$NL"
    done <<EOF
$installed
EOF
    installed=$rest
}

# Makes the rules $wanted. What they need comes before what is no longer needed goes, so that a table which both have
# never goes. A table with new parameters is another one under the same name: its old rules must go first.
apply_rules() {
    local rule origin added='' removed=''
    load_record
    find_missing
    while read -r rule; do
        if [ -n "$rule" ] && is_replaced "$rule"; then
            removed="$removed$rule$NL"
            remove_rule "$rule" || undo
        fi
    done <<EOF
$installed
EOF
    await_tables_gone "$removed"
    while read -r rule; do
        [ -n "$rule" ] && is_listed "$rule" "$missing" || continue
        added="$added$rule$NL"
        add_rule "$rule" || {
            origin_of "$rule"
            warn "$origin: $complaint"
            undo
        }
    done <<EOF
$wanted
EOF
    remove_rules_but "$wanted" || return 1
    installed=$wanted
    save_record
}

# Whether the name of a rule is wanted for a table with other parameters.
is_replaced() { # RULE
    local tool chain words port match name
    take_apart "$1"
    case $wanted in *" -m traffic $match$NL"*) return 1 ;; esac
    case $wanted in *" --name $name "*) return 0 ;; esac
    return 1
}

# Takes back what apply_rules did so far, and ends.
undo() {
    local rule
    while read -r rule; do
        [ -z "$rule" ] || remove_rule "$rule"
    done <<EOF
$added
EOF
    await_tables_gone "$added"
    while read -r rule; do
        [ -z "$rule" ] || change find "$rule" || add_rule "$rule" || warn "cannot put back: $rule: $complaint"
    done <<EOF
$removed
EOF
    save_record
    [ "$command" = reload ] || [ -n "$installed" ] || rm -f "$RUN/rules"
    die 1 'the rules are as they were before'
}

# Removes what is recorded and not in a list.
remove_rules_but() { # LIST
    local rule gone='' status=0
    while read -r rule; do
        [ -n "$rule" ] && ! is_listed "$rule" "$1" || continue
        gone="$gone$rule$NL"
        remove_rule "$rule" || status=1
    done <<EOF
$installed
EOF
    save_record
    await_tables_gone "$gone"
    return $status
}

# nf_tables frees rules a little later than the tool says, and until then the names of their tables are taken. When
# another rule has the table, it stays; so do not wait long.
await_tables_gone() { # RULES
    local rule tool chain words port match name tries=20
    while read -r rule; do
        take_apart "$rule"
        case $installed in *" --name $name "*) continue ;; esac
        while [ -n "$rule" ] && [ $tries -gt 0 ] && has_table "$name"; do
            sleep 0.1
            tries=$((tries - 1))
        done
    done <<EOF
$1
EOF
}

has_table() { # NAME
    [ -e "$TABLES/$1" ] || [ -e "$TABLES/$1.ipconn" ] || [ -e "$TABLES/$1.portconn" ]
}
