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

# finish FILE: compares $work/FILE with the checked-in image, or installs it
finish() {
    if [ "$install" = yes ]; then
        install -m 644 "$work/$1" "$images/$1"
    elif ! cmp "$work/$1" "$images/$1"; then
        status=1
    fi
}

# build TARGET TOOL-PREFIX AS-FLAGS LD-FLAGS [bin] [FORMAT]: every source in TARGET's directory,
# as ELF, or as raw bytes where QEMU takes nothing else; FORMAT is the ELF QEMU wants where that
# is another than the linker's
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
            -L "$here/$1" -T "$here/$1/guest.ld" -o "$work/$name.elf" "$work/$name.o"
        [ -z "${6:-}" ] || "$2-objcopy" -O "$6" "$work/$name.elf"
        [ "${5:-}" != bin ] || "$2-objcopy" -O binary "$work/$name.elf" "$work/$name.bin"
        finish "$name.${5:-elf}"
    done
    echo "built $1"
}

install=no
[ "${1:-}" = --install ] && install=yes
build x86_64 x86_64-linux-gnu --64 "-m elf_x86_64"
build i386 x86_64-linux-gnu --32 "-m elf_i386"
build aarch64 aarch64-linux-gnu "" ""
build arm arm-linux-gnueabihf "" ""
build riscv64 riscv64-linux-gnu "-march=rv64imac_zicsr -mabi=lp64" ""
build riscv32 riscv64-linux-gnu "-march=rv32imac_zicsr -mabi=ilp32" "-m elf32lriscv"
build ppc64 powerpc64-linux-gnu "-a64 -mbig -mpower8" "-m elf64ppc" bin
build ppc64le powerpc64-linux-gnu "-a64 -mlittle -mpower8" "-m elf64lppc" bin
build s390x s390x-linux-gnu "-march=z10 -m64" ""
build mipsel mipsel-linux-gnu "-EL -mips32r2 -mabi=32 -G0" "-EL -m elf32ltsmip"
build mips mips-linux-gnu "-EB -mips32r2 -mabi=32 -G0" "-EB -m elf32btsmip"
build mips64el mipsel-linux-gnu "-EL -mips32r2 -mabi=32 -G0" "-EL -m elf32ltsmip" "" elf64-tradlittlemips
build mips64 mips-linux-gnu "-EB -mips32r2 -mabi=32 -G0" "-EB -m elf32btsmip" "" elf64-tradbigmips
build m68k m68k-linux-gnu -m68040 ""
exit $status
