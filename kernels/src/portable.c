int subbyte_placeholder(void); int subbyte_placeholder(void) { return 0; }
