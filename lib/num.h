/* Small arithmetic: the lesser, the greater, how many an array has.  Each argument is evaluated once. */
#ifndef TNL_NUM_H
#define TNL_NUM_H

/* Both of one type, so that a comparison of signed with unsigned is a warning at the caller. */
#define TNL_MIN(a, b)                                                                                                  \
	({                                                                                                             \
		__typeof__(a) min_a = (a);                                                                             \
		__typeof__(b) min_b = (b);                                                                             \
		min_a < min_b ? min_a : min_b;                                                                         \
	})
#define TNL_MAX(a, b)                                                                                                  \
	({                                                                                                             \
		__typeof__(a) max_a = (a);                                                                             \
		__typeof__(b) max_b = (b);                                                                             \
		max_a > max_b ? max_a : max_b;                                                                         \
	})
#define TNL_COUNT(array) (sizeof(array) / sizeof((array)[0]))

#endif
