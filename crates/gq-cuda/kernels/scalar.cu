// y = W x for scalar codes and 1 to 8 tokens, in int8.
#include "codes.h"

GEMVS(gemv_tq1, TQ1)
GEMVS(gemv_tq2, TQ2)
GEMVS(gemv_tq3, TQ3)
GEMVS(gemv_tq4, TQ4)
GEMVS(gemv_tq5, TQ5)
GEMVS(gemv_tq6, TQ6)
GEMVS(gemv_tq7, TQ7)
GEMVS(gemv_bytes, BYTES)
