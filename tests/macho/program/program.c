// Prints the text that it was compiled with; no header, since there are none of macOS's here.
int puts(const char *);

const char text[] = TEXT;

#ifdef EXTRA_MB
// Constant data; the pages differ, or nearly all would have one digest.
extern const char extra[];
__asm__(".section __TEXT,__const\n"
        ".globl _extra\n"
        "_extra:\n"
        ".set page, 0\n"
        ".rept " EXTRA_MB " * 256\n"
        ".long page\n"
        ".set page, page + 1\n"
        ".zero 4092\n"
        ".endr\n"
        ".text\n");
#endif

int main(void) {
#ifdef EXTRA_MB
    if (extra[4096] == 0)
        return 1;
#endif
    return puts(text) < 0;
}
