// y = W x for MXFP4 and grids and 1 to 8 tokens, in int8. Eight bits: gemv_bytes.
#include "codes.h"

GEMVS(gemv_mxfp4, MXFP4)
GEMVS(gemv_grid4, GRID4)
GEMVS(gemv_grid4m, GRID4M)
GEMVS(gemv_grid5, GRID5)
GEMVS(gemv_grid5m, GRID5M)
GEMVS(gemv_grid6, GRID6)
