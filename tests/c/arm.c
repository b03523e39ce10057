// The system of test_kernels_arm.py: it says whether the processor has dot products.
static unsigned long has_dot_product;

void set_dot_product(int has) {
  has_dot_product = has != 0;
}

// As on Linux: 16 asks for the processor's features, and bit 20 is dot products.
unsigned long getauxval(unsigned long type) {
  return type == 16 ? has_dot_product << 20 : 0;
}

int main(void) {
  return 0;
}
