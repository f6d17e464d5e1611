# SPDX-License-Identifier: GPL-2.0-only
# Part of xt-traffic(8) and of the configuration of GRUB: the installed kernels.
# shellcheck shell=dash

# Prints the file of the newest kernel with the hook PROMISC, if there is one. GRUB's
# /etc/grub.d/10_linux sorts in the same way, also with a word after each name.
newest_image() { # FOLDER
    find -H "$1" -maxdepth 1 -type f -name 'vmlinuz-*-promisc.*' ! -name '*.dpkg-*' ! -name '*.old' 2>/dev/null |
        sed 's/$/ 2/' | LC_ALL=C sort -V | sed -n '$s/ 2$//p'
}

# Prints the file of the kernel in the default entry of GRUB's menu, if GRUB is installed and the
# entry is in the menu. It is an entry for the next boot only, if there is one.
# https://www.gnu.org/software/grub/manual/grub/html_node/default.html
default_image() { # FOLDER
    local key value once='' saved=''
    [ -r "$1/grub.cfg" ] || return 0
    if [ -r "$1/grubenv" ]; then
        while IFS='=' read -r key value; do
            case $key in
                next_entry) once=$value ;;
                saved_entry) saved=$value ;;
            esac
        done <"$1/grubenv"
    fi
    # awk interprets backslashes in variables, but not in its environment.
    once=$once saved=$saved awk '
        function choose(entry) { parts = split(entry == "" ? "0" : entry, path, ">") }
        BEGIN { depth = 0; within[0] = 1; choose(ENVIRON["once"]) }
        ENVIRON["once"] == "" && /^[ \t]*set default="/ {
            sub(/^[ \t]*set default="/, "")
            sub(/"[ \t]*$/, "")
            if ($0 != "${next_entry}") choose($0 == "${saved_entry}" ? ENVIRON["saved"] : $0)
        }
        /^[ \t]*(menuentry|submenu)[ \t]/ {
            split($0, words, "\047")
            id = match($0, /menuentry_id_option \047[^\047]*/) ? substr($0, RSTART + 21, RLENGTH - 21) : ""
            wanted = path[depth + 1] ""
            number = count[depth]++ ""
            found = within[depth] && depth < parts && (wanted == number || wanted == words[2] "" || wanted == id)
            if ($1 == "submenu") {
                within[++depth] = found
                count[depth] = 0
            } else {
                is_default = found && depth + 1 == parts
                in_block = 1
            }
        }
        /^function .*[{]$/ { in_block = 1 }
        /^[ \t]*[}]$/ { if (in_block) in_block = 0; else depth-- }
        is_default && in_block && $1 == "linux" { print $2; exit }
    ' "$1/grub.cfg"
}
