#include "lib/steps.h"

_Thread_local uint64_t tnl_steps_made;
