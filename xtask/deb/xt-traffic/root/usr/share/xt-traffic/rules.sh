# SPDX-License-Identifier: GPL-2.0-only
# Part of xt-traffic(8): the rules. Other parts set some of the variables:
# shellcheck shell=dash disable=SC2034,SC2153,SC2154

# Sets $action. In PROMISC a rule is appended, so that rules of the administrator can exclude
# frames. In the other chains it is inserted first, so that it also counts what a firewall rule
# drops.
action_for() { # add|delete|find CHAIN
    case $1$2 in
        addPROMISC) action=-A ;;
        add*) action=-I ;;
        delete*) action=-D ;;
        find*) action=-C ;;
    esac
}

# Adds, deletes or finds a rule. Sets $complaint to the output of the tool.
change() { # add|delete|find RULE
    local action tool chain words port match name
    take_apart "$2"
    action_for "$1" "$chain"
    # shellcheck disable=SC2086  # $words is split into words
    try "$tool" -w "$action" "$chain" $words
}

# Replaces a rule by another one of the same tool in one step: each packet passes through one of
# them.
replace_rule() { # OLD NEW
    local action tool chain words port match name deletion
    record_rule "$2"
    take_apart "$1"
    deletion="-D $chain $words"
    take_apart "$2"
    action_for add "$chain"
    try restore "$tool" "$deletion$NL$action $chain $words"
}

# Makes several changes in one step.
restore() { # TOOL LINES
    printf '*filter\n%s\nCOMMIT\n' "$2" | "$1-restore" -w --noflush
}

# Runs a command. Sets $complaint to its output, in one line and without the hint to run --help.
try() { # COMMAND...
    local output line status
    output=$("$@" 2>&1 </dev/null)
    status=$?
    complaint=''
    while read -r line; do
        case $line in '' | 'Try `'*) continue ;; esac
        complaint="${complaint:+$complaint; }$line"
    done <<EOF
$output
EOF
    return "$status"
}

# Sets $origin to the line of the configuration that a rule comes from, for messages.
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

# Sets $missing to the rules in $wanted that do not exist. This also makes the tools check all
# options before anything is changed.
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
                die "$BAD_CONF" "$origin: $complaint"
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

# Replaces the record in one step.
save_record() {
    if ! { printf '%s' "$installed" >"$RUN/record" && mv "$RUN/record" "$RUN/rules"; }; then
        die 1 "cannot write $RUN/rules"
    fi
}

add_rule() { # RULE
    record_rule "$1"
    change add "$1"
}

# A rule is in the record before it is added.
record_rule() { # RULE
    if ! is_listed "$1" "$installed"; then
        installed="$installed$1$NL"
        save_record
    fi
}

# Removes a rule if it exists. The record on disk still has it until all changes are made; that is
# harmless.
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

# Adds the rules that are missing in $wanted. The old ones are removed afterwards, by drop_old_rules,
# so that a table that both use is kept. In between, the ports are set up: so a port that gets a
# mirror device is counted by its old rule until the device is up, and then by the new one. A rule
# whose table gets other parameters is replaced in one step, so that no packet is missed or counted
# twice. These changes come last, because undoing them does not bring back counts. If a table gets
# the other family, removes its old rules first, because the kernel refuses a table with the name of
# one of the other family.
add_rules() {
    local rule old obsolete added='' replaced='' removed=''
    find_obsolete
    while read -r rule; do
        if [ -z "$rule" ] || ! changes_family "$rule"; then continue; fi
        removed="$removed$rule$NL"
        remove_rule "$rule" || undo
    done <<EOF
$obsolete
EOF
    await_tables "$removed"
    add_missing add
    add_missing replace
}

drop_old_rules() {
    remove_rules_but "$wanted" || return 1
    installed=$wanted
    save_record
    warn_of_waiting
}

# Adds the rules in $missing that replace none, or those that replace one.
add_missing() { # add|replace
    local rule origin
    while read -r rule; do
        if [ -z "$rule" ] || ! is_listed "$rule" "$missing"; then continue; fi
        find_old "$rule" "$obsolete"
        case $1$old in
            add)
                added="$added$rule$NL"
                add_rule "$rule"
                ;;
            replace?*)
                added="$added$rule$NL"
                replaced="$replaced$old$NL"
                replace_rule "$old" "$rule"
                ;;
        esac || {
            origin_of "$rule"
            warn "$origin: $complaint"
            undo
        }
    done <<EOF
$wanted
EOF
}

# Whether the configuration has the table of a rule with the other family.
changes_family() { # RULE
    local tool chain words port match name line family
    take_apart "$1"
    while read -r _ line family _; do
        [ "$line" != "$name" ] || [ "$family" = "${tool%-*}" ] || return 0
    done <<EOF
$tables
EOF
    return 1
}

# Sets $obsolete to the rules in the record that exist and are not in $wanted.
find_obsolete() {
    local rule
    obsolete=''
    while read -r rule; do
        if [ -z "$rule" ] || is_listed "$rule" "$wanted"; then continue; fi
        ! change find "$rule" || obsolete="$obsolete$rule$NL"
    done <<EOF
$installed
EOF
}

# Sets $old to the rule in a list that has the same tool, chain, port and table name as another rule.
find_old() { # RULE LIST
    local tool chain words port match name key
    take_apart "$1"
    key="$tool $chain $port $name"
    while read -r old; do
        take_apart "$old"
        [ "$tool $chain $port $name" != "$key" ] || return 0
    done <<EOF
$2
EOF
    old=''
}

# Undoes the changes of add_rules, and exits.
undo() {
    local rule old
    while read -r rule; do
        [ -n "$rule" ] || continue
        find_old "$rule" "$replaced"
        if [ -n "$old" ] && change find "$rule"; then
            replace_rule "$rule" "$old" || warn "cannot restore rule: $old: $complaint"
        fi
        remove_rule "$rule"
    done <<EOF
$added
EOF
    await_tables "$added"
    while read -r rule; do
        [ -z "$rule" ] || change find "$rule" || add_rule "$rule" || warn "cannot restore rule: $rule: $complaint"
    done <<EOF
$removed
EOF
    save_record
    # A start that fails leaves nothing.
    [ "$command" = reload ] || [ -n "$installed" ] || remove_all
    die 1 'restored the previous rules'
}

# Removes the recorded rules that are not in a list.
remove_rules_but() { # LIST
    local rule gone='' status=0
    while read -r rule; do
        if [ -z "$rule" ] || is_listed "$rule" "$1"; then continue; fi
        gone="$gone$rule$NL"
        remove_rule "$rule" || status=1
    done <<EOF
$installed
EOF
    save_record
    await_tables "$gone"
    return $status
}

# Waits until the tables of removed rules are gone, or their files show the tables that come after
# them. nf_tables frees rules shortly after the tool has exited. If another rule uses a table, the
# table stays, so the wait is limited to two seconds in all.
await_tables() { # RULES
    local rule tool chain words port match name tries=20
    while read -r rule; do
        [ -n "$rule" ] || continue
        take_apart "$rule"
        while [ $tries -gt 0 ] && is_in_use "$name"; do
            sleep 0.1
            tries=$((tries - 1))
        done
    done <<EOF
$1
EOF
}

# Whether a table of removed rules still has the files of a name.
is_in_use() { # NAME
    case $installed in
        *" --name $1 "*) is_waiting "$1" ;;
        *) has_table "$1" ;;
    esac
}

# Whether a table waits until another table of the same name is gone.
is_waiting() { # NAME
    local key
    [ -f "$TABLES/.stats" ] || return 1
    while read -r key _; do
        [ "$key" != "$1.waiting" ] || return 0
    done <"$TABLES/.stats"
    return 1
}

# Warns of each table in the configuration whose name is that of another table, too.
warn_of_waiting() {
    local number name
    while read -r number name _; do
        if [ -n "$name" ] && is_waiting "$name"; then
            warn "$CONF:$number: table $name: $TWO_TABLES"
        fi
    done <<EOF
$tables
EOF
}

has_table() { # NAME
    [ -e "$TABLES/$1" ] || [ -e "$TABLES/$1.ipconn" ] || [ -e "$TABLES/$1.portconn" ]
}
