// What the kernels take of this header of Linux, for test_kernels_arm.py, which links without a C library.
#define AT_HWCAP 16
unsigned long getauxval(unsigned long type);
