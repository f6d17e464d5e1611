# SPDX-License-Identifier: GPL-2.0-only
# Part of xt-traffic(8) and of the configuration of GRUB: the installed kernels.
# shellcheck shell=dash

# The variables of the firmware. Tests set another folder.
EFIVARS=${EFIVARS-/sys/firmware/efi/efivars}

# Prints the file of the newest kernel with the hook PROMISC that can be booted, if there is one.
newest_image() { # FOLDER
    local image
    installed_images "$1" | while read -r image; do
        if has_its_initrd "$image" && { ! boots_only_signed || is_signed "$image"; }; then
            printf '%s\n' "$image"
            break
        fi
    done
}

# Prints the files of all kernels with the hook, the newest first. GRUB's /etc/grub.d/10_linux sorts
# in the same way, also with a word after each name.
installed_images() { # FOLDER
    find -H "$1" -maxdepth 1 -type f -name 'vmlinuz-*-promisc.*' ! -name '*.dpkg-*' ! -name '*.old' 2>/dev/null |
        sed 's/$/ 2/' | LC_ALL=C sort -rV | sed 's/ 2$//'
}

# Whether a kernel has an initrd, or none has one.
has_its_initrd() { # IMAGE
    local folder=${1%/*}
    [ -e "$folder/initrd.img-${1##*/vmlinuz-}" ] || [ -z "$(find -H "$folder" -maxdepth 1 -name 'initrd.img-*')" ]
}

# Whether Secure Boot is on. The fifth byte of the variable is its value:
# https://docs.kernel.org/filesystems/efivarfs.html
boots_only_signed() {
    local value
    value=$(od -A n -t u1 -j 4 -N 1 "$EFIVARS/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c" 2>/dev/null)
    [ "${value##* }" = 1 ]
}

# Whether a kernel is from a package that was signed with a machine owner key.
is_signed() { # IMAGE
    case $(dpkg-query --show --showformat='${Version}' "linux-image-${1##*/vmlinuz-}" 2>/dev/null) in
        *+signed*) ;;
        *) return 1 ;;
    esac
}

# Prints the file of the kernel in the default entry of GRUB's menu, if the menu has one. It is an
# entry for the next boot only, if there is one. GRUB takes the first entry of a menu if the default
# is not in it, or is a menu itself.
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
        # The entry of a menu with this number, title or id.
        function entry_of(menu, wanted, number, entry) {
            for (number = 0; wanted != "" && (menu, number) in entries; number++) {
                entry = entries[menu, number]
                if (wanted == number "" || wanted == title[entry] || wanted == id[entry]) return entry
            }
            return entries[menu, 0]
        }
        BEGIN { menu = 0; default = ENVIRON["once"] }
        ENVIRON["once"] == "" && /^[ \t]*set default="/ {
            sub(/^[ \t]*set default="/, "")
            sub(/"[ \t]*$/, "")
            if ($0 != "${next_entry}") default = $0 == "${saved_entry}" ? ENVIRON["saved"] : $0
        }
        /^[ \t]*(menuentry|submenu)[ \t]/ {
            entry = NR
            entries[menu, size[menu]++ + 0] = entry
            split($0, words, "\047")
            title[entry] = words[2] ""
            id[entry] = match($0, /menuentry_id_option \047[^\047]*/) ? substr($0, RSTART + 21, RLENGTH - 21) : ""
            if ($1 == "submenu") {
                above[entry] = menu
                menu = entry
            } else {
                in_block = 1
            }
        }
        in_block && $1 == "linux" { image[entry] = $2 }
        /^function .*[{]$/ { in_block = 1 }
        /^[ \t]*[}]$/ { if (in_block) in_block = 0; else menu = above[menu] }
        END {
            split(default, path, ">")
            entry = entry_of(0, path[1] "")
            for (part = 2; entry in above; part++) entry = entry_of(entry, path[part] "")
            if (entry in image) print image[entry]
        }
    ' "$1/grub.cfg"
}
