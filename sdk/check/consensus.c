#include "check.h"
const struct check_case check_consensus_cases[] = {{NULL, NULL}};
