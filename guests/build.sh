#!/bin/sh
# Builds the built-in guests; needs only Debian's binutils for each target.
#
#   guests/build.sh            build, and compare with the checked-in images (exit 1 if one differs)
#   guests/build.sh --install  build, and replace the checked-in images
#
# A target whose assembler is not installed is skipped and named.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
images=$here/../src/retrograde/guests/tiny
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
status=0

# finish NAME: compares or installs $work/NAME.elf
finish() {
    if [ "$install" = yes ]; then
        install -m 644 "$work/$1.elf" "$images/$1.elf"
    elif ! cmp "$work/$1.elf" "$images/$1.elf"; then
        status=1
    fi
}

# build TARGET TOOL-PREFIX AS-FLAGS LD-FLAGS: every source in TARGET's directory
build() {
    if ! command -v "$2-as" >/dev/null || ! command -v "$2-ld" >/dev/null; then
        echo "skipped $1: no $2-as (Debian package binutils-$(echo "$2" | tr _ -))"
        return
    fi
    for source in "$here/$1"/*.S; do
        case $source in *.inc.S) continue ;; esac
        name=$1-$(basename "$source" .S)
        # Paths relative to the source directory: nothing of this machine gets into the image.
        (cd "$here/$1" && "$2-as" $3 -I . -o "$work/$name.o" "$(basename "$source")")
        "$2-ld" $4 -nostdlib -static -n --build-id=none -z noexecstack --no-warn-rwx-segments \
            -T "$here/$1/guest.ld" -o "$work/$name.elf" "$work/$name.o"
        finish "$name"
    done
    echo "built $1"
}

install=no
[ "${1:-}" = --install ] && install=yes
build x86_64 x86_64-linux-gnu --64 "-m elf_x86_64"
exit $status
