/* How many links a session is to have. */
#include "tests/daemon/base/td_test.h"
#include "tunneld/client/internal.h"

#include "lib/num.h"

static void as_many_as_help(void **state)
{
	static const struct {
		enum td_bulk kind;
		unsigned wanted, up;
		bool full;
		unsigned then, busy;
	} cases[] = {
	    {TD_BULK_PLAIN, 1, 1, false, 4, 4}, /* as many as there are TCPs beside it, or more */
	    {TD_BULK_PLAIN, 1, 1, false, 8, 5},	 {TD_BULK_PLAIN, 4, 4, false, 8, 100},
	    {TD_BULK_PLAIN, 4, 4, true, 4, 100}, {TD_BULK_FULL, 1, 1, true, 1, 100},
	    {TD_BULK_PLAIN, 1, 1, false, 4, 1}, /* nobody knows better */
	    {TD_BULK_PLAIN, 4, 2, false, 4, 1},	 {TD_BULK_PLAIN, 8, 8, false, 8, 1},
	    {TD_BULK_PLAIN, 1, 1, true, 1, 1}, /* who sends has said that it is of no use */
	    {TD_BULK_PLAIN, 4, 4, true, 4, 1},	 {TD_BULK_FULL, 1, 1, true, 1, 1},
	    {TD_BULK_FULL, 4, 1, true, 1, 1}, /* it came while they were being opened */
	    {TD_BULK_FULL, 4, 0, true, 1, 1},	 {TD_BULK_FULL, 4, 2, true, 4, 1}, /* too late */
	    {TD_BULK_FULL, 8, 1, true, 8, 1},					   /* those are for losses */
	    {TD_BULK_LOSSY, 1, 1, true, 8, 1}, /* that is said only when no queue stands there */
	    {TD_BULK_LOSSY, 4, 4, false, 8, 1},	 {TD_BULK_LOSSY, 8, 8, false, 8, 1},
	};
	for (size_t i = 0; i < TNL_COUNT(cases); i++) {
		unsigned n =
		    td_client_links_for(cases[i].kind, cases[i].wanted, cases[i].up, cases[i].full, cases[i].busy);
		if (n != cases[i].then)
			fail_msg("case %zu: %u links, not %u", i, n, cases[i].then);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(as_many_as_help),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
