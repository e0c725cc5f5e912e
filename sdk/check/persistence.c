#include "check.h"
const struct check_case check_persistence_cases[] = {{NULL, NULL}};
