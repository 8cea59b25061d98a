/* Small arithmetic: the lesser, the greater, how many an array has.  Each argument is evaluated once. */
#ifndef TNL_NUM_H
#define TNL_NUM_H

/* Both of one type, so that a comparison of signed with unsigned is a warning at the caller. */
#define TNL_MIN(a, b) TNL_NUM_PICK(__COUNTER__, <, a, b)
#define TNL_MAX(a, b) TNL_NUM_PICK(__COUNTER__, >, a, b)
/* The number makes names that shadow none when one stands inside of another. */
#define TNL_NUM_PICK(number, op, a, b) TNL_NUM_PICK_AS(number, op, a, b)
#define TNL_NUM_PICK_AS(number, op, a, b)                                                                              \
	({                                                                                                             \
		__typeof__(a) pick_a##number = (a);                                                                    \
		__typeof__(b) pick_b##number = (b);                                                                    \
		pick_a##number op pick_b##number ? pick_a##number : pick_b##number;                                    \
	})
#define TNL_COUNT(array) (sizeof(array) / sizeof((array)[0]))

#endif
