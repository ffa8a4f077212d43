"""Command lines as people have them, after the public scripts and manuals they are named for.

{kernel} is the built-in guest `tiny` of the target, {boot} a boot sector that prints and powers
off, {bios} a firmware that does, {semihosting} a program for Cortex-M that prints and exits by
semihosting, {lm3s} and {stm32} ones that print and reset, {disk} an empty disk, {folder} a
folder.
"""

from __future__ import annotations

ZEPHYR = (
    "-net none -pidfile qemu.pid -chardev stdio,id=con,mux=on -serial chardev:con "
    "-mon chardev=con,mode=readline -icount shift=5,align=off,sleep=off -rtc clock=vm "
)

LINES: dict[str, tuple[str, str]] = {
    "zephyr-x86": (
        "i386",
        "-m 32 -cpu qemu32,+nx,+pae -machine pc -device isa-debug-exit,iobase=0xf4,iosize=0x04 "
        f"-no-reboot -nographic {ZEPHYR} -kernel {{kernel}}",
    ),
    "zephyr-x86-q35": ("i386", f"-m 32 -machine q35 -nographic {ZEPHYR} -kernel {{kernel}}"),
    "zephyr-a57": (
        "aarch64",
        f"-cpu cortex-a57 -nographic -machine virt {ZEPHYR} -kernel {{kernel}}",
    ),
    "zephyr-riscv32": (
        "riscv32",
        f"-nographic -machine virt -bios none -m 256 {ZEPHYR} -kernel {{kernel}}",
    ),
    "zephyr-riscv64": (
        "riscv64",
        f"-nographic -machine virt -bios none -m 256 {ZEPHYR} -kernel {{kernel}}",
    ),
    "zephyr-malta": (
        "mipsel",
        "-cpu 24Kc -machine malta -nographic -serial mon:stdio -kernel {kernel}",
    ),
    "xv6-x86": (
        "i386",
        "-serial mon:stdio -drive file={disk},index=1,media=disk,format=raw "
        "-drive file={boot},index=0,media=disk,format=raw -smp 1 -m 512",
    ),
    "xv6-x86-nox-gdb": (
        "i386",
        "-nographic -drive file={disk},index=1,media=disk,format=raw "
        "-drive file={boot},index=0,media=disk,format=raw -smp 1 -m 512 -S -gdb tcp::26000",
    ),
    "xv6-riscv": (
        "riscv64",
        "-machine virt -bios none -kernel {kernel} -m 128M -smp 1 -nographic "
        "-global virtio-mmio.force-legacy=false -drive file={disk},if=none,format=raw,id=x0 "
        "-device virtio-blk-device,drive=x0,bus=virtio-mmio-bus.0",
    ),
    "blog-os": (
        "x86_64",
        "-drive format=raw,file={boot} -device isa-debug-exit,iobase=0xf4,iosize=0x04 "
        "-serial stdio -display none",
    ),
    "osdev-kernel": ("i386", "-kernel {kernel} -serial stdio"),
    "osdev-hda": ("i386", "-hda {boot} -serial stdio"),
    "osdev-bare-word": ("x86_64", "{boot} -serial mon:stdio"),
    "osdev-floppy": ("i386", "-drive file={boot},format=raw,index=0,if=floppy -serial stdio"),
    "osdev-debug": (
        "x86_64",
        "-hda {boot} -m 128M -serial file:serial.log -d int,cpu_reset -D qemu.log -no-reboot "
        "-no-shutdown -monitor telnet:127.0.0.1:45454,server,nowait",
    ),
    "osdev-kvm": ("x86_64", "-enable-kvm -cpu host -m 256 -hda {boot} -serial stdio -vga std"),
    "limine": ("x86_64", "-M q35 -m 2G -hda {boot} -serial stdio"),
    "limine-usb": (
        "x86_64",
        "-M q35 -m 256 -device piix3-usb-uhci -device usb-kbd -hda {boot} -serial stdio",
    ),
    "hobby-sound": (
        "x86_64",
        "-M pc -m 256 -audiodev pa,id=snd0 -device AC97,audiodev=snd0 -hda {boot} -serial stdio",
    ),
    "hobby-debugcon": ("x86_64", "-M q35 -m 64 -debugcon stdio -hda {boot} -serial file:com1.log"),
    "hobby-debugcon-device": (
        "x86_64",
        "-M q35 -m 64 -chardev file,id=dbg,path=debug.log -hda {boot} -serial stdio "
        "-device isa-debugcon,iobase=0x402,chardev=dbg",
    ),
    "hobby-two-ports": ("x86_64", "-hda {boot} -serial mon:stdio -serial file:com2.log"),
    "hobby-net": (
        "x86_64",
        "-hda {boot} -serial stdio -netdev user,id=n0,hostfwd=tcp::0-:7 "
        "-device rtl8139,netdev=n0 -object filter-dump,id=f0,netdev=n0,file=net.pcap",
    ),
    "uefi-folder": (
        "x86_64",
        "-M q35 -m 64 -net none -drive file={boot},format=raw "
        "-drive file=fat:rw:{folder},format=raw -serial stdio",
    ),
    "kunit": (
        "x86_64",
        "-nodefaults -m 1024 -kernel {kernel} -append 'kunit.enable=1 console=ttyS0' -no-reboot "
        "-nographic -accel kvm -accel hvf -accel tcg -serial stdio",
    ),
    "kselftest-vmtest": (
        "x86_64",
        "-nodefaults -display none -serial mon:stdio -enable-kvm -cpu host -smp 1 -m 512M "
        "-drive file={disk},format=raw,index=1,media=disk,if=virtio,cache=none -kernel {kernel} "
        "-append 'root=/dev/vda rw console=ttyS0,115200'",
    ),
    "virtme": (
        "x86_64",
        "-machine accel=kvm:tcg -cpu max -m 1G -no-reboot -nodefaults -display none -vga none "
        "-serial mon:stdio -watchdog-action pause -device i6300esb -kernel {kernel} "
        "-append 'earlyprintk=serial,ttyS0,115200 console=ttyS0 psmouse.proto=exps'",
    ),
    "syzkaller": (
        "x86_64",
        "-m 2048 -smp 1 -chardev socket,id=SOCKSYZ,server=on,wait=off,host=localhost,port=51727 "
        "-mon chardev=SOCKSYZ,mode=control -display none -serial stdio -no-reboot -name VM-test "
        "-device virtio-rng-pci -enable-kvm -cpu host,migratable=off -hda {disk} -snapshot "
        "-kernel {kernel} -append 'root=/dev/sda console=ttyS0'",
    ),
    "kernel-initrd": (
        "x86_64",
        "-kernel {kernel} -initrd {disk} -nographic -append 'console=ttyS0 nokaslr' -s",
    ),
    "kernel-logfile": (
        "x86_64",
        "-chardev stdio,id=char0,mux=on,logfile=serial.log,signal=off -serial chardev:char0 "
        "-mon chardev=char0 -kernel {kernel} -append console=ttyS0 -display none",
    ),
    "kernel-rng": (
        "x86_64",
        "-kernel {kernel} -nographic -object rng-random,filename=/dev/urandom,id=rng0 "
        "-device virtio-rng-pci,rng=rng0 -qmp unix:qmp.sock,server,nowait",
    ),
    "kernel-iothread": (
        "x86_64",
        "-M q35 -kernel {kernel} -nographic -object iothread,id=io0 "
        "-drive file={disk},if=none,id=d0,format=raw,cache=none,aio=native "
        "-device virtio-blk-pci,drive=d0,iothread=io0",
    ),
    "buildroot-x86_64": (
        "x86_64",
        "-M pc -kernel {kernel} -drive file={disk},if=virtio,format=raw "
        "-append 'rootwait root=/dev/vda console=tty1 console=ttyS0' -serial stdio "
        "-net nic,model=virtio -net user",
    ),
    "buildroot-aarch64": (
        "aarch64",
        "-M virt -cpu cortex-a57 -nographic -smp 1 -kernel {kernel} "
        "-append 'rootwait root=/dev/vda console=ttyAMA0' -netdev user,id=eth0 "
        "-device virtio-net-device,netdev=eth0 -drive file={disk},if=none,format=raw,id=hd0 "
        "-device virtio-blk-device,drive=hd0",
    ),
    "buildroot-arm": ("arm", "-M virt -cpu cortex-a15 -m 256 -kernel {kernel} -nographic"),
    "buildroot-riscv32": (
        "riscv32",
        "-M virt -bios none -kernel {kernel} -append 'rootwait root=/dev/vda ro' "
        "-drive file={disk},format=raw,id=hd0,if=none -device virtio-blk-device,drive=hd0 "
        "-netdev user,id=net0 -device virtio-net-device,netdev=net0 -nographic",
    ),
    "buildroot-s390x": (
        "s390x",
        "-M s390-ccw-virtio -m 512M -smp 1 -kernel {kernel} "
        "-drive file={disk},if=virtio,format=raw -append 'root=/dev/vda' -display none "
        "-serial mon:stdio -net nic,model=virtio -net user",
    ),
    "buildroot-malta": (
        "mipsel",
        "-M malta -kernel {kernel} -drive file={disk},format=raw -append 'root=/dev/hda' "
        "-net nic,model=pcnet -net user -nographic",
    ),
    "buildroot-m68k": ("m68k", "-M virt -kernel {kernel} -append console=ttyGF0 -nographic"),
    "microvm": (
        "i386",
        "-M microvm -m 64 -kernel {kernel} -nodefaults -no-user-config -nographic -serial stdio "
        "-drive id=test,file={disk},format=raw,if=none -device virtio-blk-device,drive=test",
    ),
    "manual-virt": ("aarch64", "-machine virt -cpu cortex-a57 -kernel {kernel} -serial mon:stdio"),
    "manual-riscv": ("riscv64", "-machine virt -bios none -kernel {kernel} -nographic -m 2G"),
    "cortex-m-quickstart": (
        "arm",
        "-cpu cortex-m3 -machine lm3s6965evb -nographic "
        "-semihosting-config enable=on,target=native -kernel {semihosting}",
    ),
    "mps2-semihosting": (
        "arm",
        "-M mps2-an385 -cpu cortex-m3 -nographic -semihosting -kernel {semihosting}",
    ),
    "stellaris": (
        "arm",
        "-M lm3s6965evb -nographic -no-reboot -serial mon:stdio -kernel {lm3s}",
    ),
    "stm32vldiscovery": (
        "arm",
        "-cpu cortex-m3 -machine stm32vldiscovery -nographic -no-reboot -kernel {stm32}",
    ),
    "uboot-riscv": ("riscv64", "-nographic -machine virt -bios {kernel}"),
    "uboot-x86": ("i386", "-nographic -bios {bios}"),
}
"""Each line by a name of ours: the target, and the arguments."""

SAMPLE = ("zephyr-x86", "hobby-debugcon", "zephyr-riscv32")
"""Those that are tried with every run of the suite."""
