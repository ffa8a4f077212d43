/* The only program of a Linux guest: without a library, linked to run at any address.
 *
 * As /init it starts itself twice, one after the other, each time at an address that the kernel
 * chooses anew, and then powers off. What the kernel's command line says after "--" is for it.
 */

static long call(long number, long a, long b, long c, long d)
{
    register long fourth __asm__("r10") = d;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(fourth)
                     : "rcx", "r11", "memory");
    return result;
}

enum { WRITE = 1, FORK = 57, EXECVE = 59, EXIT = 60, WAIT4 = 61, REBOOT = 169 };

unsigned long counted;

__attribute__((noinline)) void say(const char *text, long size)
{
    call(WRITE, 1, (long)text, size, 0);
}

__attribute__((noinline)) void count_up(unsigned long turns)
{
    for (unsigned long turn = 0; turn < turns; turn++)
        *(volatile unsigned long *)&counted += turn;
}

__attribute__((noinline)) void take_another_way(void)
{
    say("odd\n", 4);
}

static void start_child(char *word)
{
    char name[] = "/init", *arguments[] = {name, "child", word, 0}, *none[] = {0};
    if (call(FORK, 0, 0, 0, 0) == 0) {
        call(EXECVE, (long)name, (long)arguments, (long)none, 0);
        call(EXIT, 1, 0, 0, 0);
    }
    call(WAIT4, -1, 0, 0, 0);
}

int begin(long *stack)
{
    char **arguments = (char **)(stack + 1);
    char *word = stack[0] > 1 ? arguments[stack[0] - 1] : 0;
    if (stack[0] > 1 && arguments[1][0] == 'c') {
        say("child\n", 6);
        count_up(1000000);
        if (stack[0] > 2 && word[0] == 'o')
            take_another_way();
        count_up(1000);
        return 0;
    }
    start_child(word);
    start_child(word);
    say("done\n", 5);
    call(REBOOT, 0xfee1dead, 0x28121969, 0x4321fedc, 0);
    return 0;
}

__asm__(".globl _start\n"
        "_start: mov %rsp, %rdi\n"
        "        and $-16, %rsp\n"
        "        call begin\n"
        "        mov %eax, %edi\n"
        "        mov $60, %eax\n"
        "        syscall\n");
