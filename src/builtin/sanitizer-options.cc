// In a sandbox leaks cannot be looked for, and no variable of the tests reaches this program to say so.
extern "C" const char *__asan_default_options();
extern "C" const char *__asan_default_options() {
    return "detect_leaks=0";
}
