"""Tests that boot a TuxTest image to its login, look around and halt."""

from __future__ import annotations

from .asset import Asset
from .cmd import exec_command_and_wait_for_pattern, get_qemu_img
from .linuxkernel import LinuxKernelTest


class TuxRunBaselineTest(LinuxKernelTest):
    """Boots kernels and root file systems of the TuxRun project.

    `console` is the kernel's console, `root` the disk with the root file system, `extradev`
    a device to add before the disk, `wait_for_shutdown` says whether QEMU ends by itself
    once the guest has halted.
    """

    KERNEL_COMMON_COMMAND_LINE = "printk.time=0"

    def setUp(self) -> None:
        """See QemuSystemTest."""
        super().setUp()
        self.console = "ttyS0"
        self.root = "vda"
        self.extradev: str | None = None
        self.wait_for_shutdown = True
        self.qemu_img = get_qemu_img(self)

    def fetch_tuxrun_assets(
        self,
        kernel_asset: Asset,
        rootfs_asset: Asset | None = None,
        dtb_asset: Asset | None = None,
    ) -> tuple[str, str | None, str | None]:
        """Return the paths of a kernel, an uncompressed root file system and a device tree."""
        kernel = kernel_asset.fetch()
        rootfs = self.uncompress(rootfs_asset) if rootfs_asset else None
        dtb = dtb_asset.fetch() if dtb_asset else None
        return kernel, rootfs, dtb

    def prepare_run(
        self,
        kernel: str,
        disk: str | None,
        drive: str,
        dtb: str | None = None,
        console_index: int = 0,
    ) -> None:
        """Give the machine the kernel, and the disk as a device `drive`."""
        self.vm.set_console(console_index=console_index)
        line = f"{self.KERNEL_COMMON_COMMAND_LINE} root=/dev/{self.root} console={self.console}"
        self.vm.add_args("-kernel", kernel, "-append", line)
        if self.extradev:
            self.vm.add_args("-device", self.extradev)
        if disk:
            self.vm.add_args("-blockdev", _disk(disk), "-device", f"{drive},drive=hd0")
        if dtb:
            self.vm.add_args("-dtb", dtb)

    def run_tuxtest_tests(self, haltmsg: str) -> None:
        """Log in, look at the interrupts and halt."""
        self.wait_for_console_pattern("tuxtest login:")
        exec_command_and_wait_for_pattern(self, "root", "root@tuxtest:~#")
        exec_command_and_wait_for_pattern(self, "cat /proc/interrupts", "root@tuxtest:~#")
        exec_command_and_wait_for_pattern(self, "halt", haltmsg)
        if self.wait_for_shutdown:
            self.vm.wait()
        else:
            self.vm.shutdown()

    def common_tuxrun(
        self,
        kernel_asset: Asset,
        rootfs_asset: Asset | None = None,
        dtb_asset: Asset | None = None,
        drive: str = "virtio-blk-device",
        haltmsg: str = "reboot: System halted",
        console_index: int = 0,
    ) -> None:
        """Fetch, boot, look around and halt."""
        self.require_accelerator("tcg")
        kernel, disk, dtb = self.fetch_tuxrun_assets(kernel_asset, rootfs_asset, dtb_asset)
        self.prepare_run(kernel, disk, drive, dtb, console_index)
        self.vm.launch()
        self.run_tuxtest_tests(haltmsg)


def _disk(path: str) -> str:
    # With a comma doubled, as QEMU wants it in a value.
    name = path.replace(",", ",,")
    return f"driver=raw,file.driver=file,file.filename={name},node-name=hd0"
