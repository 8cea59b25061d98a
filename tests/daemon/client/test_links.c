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

/* A store that is away, a balancer without a gateway: that passes, and the session has its links then. */
static void only_what_will_not_pass_is_a_refusal(void **state)
{
	(void)state;
	static const struct {
		struct td_aws_reply r;
		bool refused;
	} cases[] = {
	    {{.err = TNL_EREFUSED, .status = 400, .type = "UnknownOperationException"}, true},
	    {{.err = TNL_EREFUSED, .status = 403, .type = "AccessDeniedException"}, true},
	    {{.err = TNL_EREFUSED, .status = 400, .type = "DoesNotExistException"}, false},
	    {{.err = TNL_EREFUSED, .status = 400, .type = "ThrottlingException"}, false},
	    {{.err = TNL_EREFUSED, .status = 503, .type = "ServiceUnavailableException"}, false},
	    {{.err = TNL_EREFUSED, .status = 502, .type = ""}, false},
	    {{.err = TNL_EUNREACH, .type = ""}, false},
	};
	for (size_t i = 0; i < TNL_COUNT(cases); i++)
		if (td_client_links_refused(&cases[i].r) != cases[i].refused)
			fail_msg("case %zu", i);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(as_many_as_help),
	    cmocka_unit_test(only_what_will_not_pass_is_a_refusal),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
