/* The ends that the gateway has not confirmed, without a gateway. */
#include "tests/daemon/base/td_test.h"
#include "tunneld/agent/internal.h"

#define WAITING_MAX 1000

static struct td_agent A;
static int settled;
static char last[64];

static void on_settled(struct td_agent *a, const char *session_id)
{
	assert_ptr_equal(a, &A);
	assert_true(ag_tasks_pending(&a->tasks, session_id)); /* before it leaves the list */
	snprintf(last, sizeof(last), "%s", session_id);
	settled++;
}

static int set_up(void **state)
{
	t_open();
	memset(&A, 0, sizeof(A));
	A.loop = T;
	settled = 0;
	ag_tasks_init(&A.tasks, &A, on_settled);
	return 0;
}

static int tear_down(void **state)
{
	ag_tasks_fini(&A.tasks);
	t_close();
	return 0;
}

static void without_a_control_channel_they_wait(void **state)
{
	int never = 0;

	ag_tasks_add(&A.tasks, "s-1", AG_SUCCESS, "");
	ag_tasks_link(&A.tasks, NULL);
	t_until(&never, 30);
	assert_true(ag_tasks_pending(&A.tasks, "s-1"));
	assert_false(ag_tasks_pending(&A.tasks, "s-2"));
	assert_int_equal(A.n.tasks_sent, 0);
	assert_int_equal(settled, 0);
}

static void only_their_own_message_id_confirms_them(void **state)
{
	char id[TNL_UUID_STR];

	ag_tasks_add(&A.tasks, "s-1", AG_SUCCESS, "");
	ag_tasks_add(&A.tasks, "s-2", AG_FAILED, "why");
	ag_tasks_confirm(&A.tasks, "");
	ag_tasks_confirm(&A.tasks, "s-1");
	ag_tasks_confirm(&A.tasks, "00000000-0000-4000-8000-000000000000");
	assert_int_equal(settled, 0);
	tnl_uuid_str(tnl_container_of(A.tasks.list.next, struct ag_task, node)->message_id, id);
	ag_tasks_confirm(&A.tasks, id);
	assert_int_equal(settled, 1);
	assert_string_equal(last, "s-1");
	assert_false(ag_tasks_pending(&A.tasks, "s-1"));
	assert_true(ag_tasks_pending(&A.tasks, "s-2"));
}

static void beyond_a_thousand_the_oldest_is_given_up(void **state)
{
	char id[16];

	for (int i = 0; i < WAITING_MAX + 2; i++) {
		assert_int_equal(settled, i < WAITING_MAX ? 0 : i - WAITING_MAX);
		snprintf(id, sizeof(id), "s-%d", i);
		ag_tasks_add(&A.tasks, id, AG_SUCCESS, "");
	}
	assert_string_equal(last, "s-1");
	assert_true(ag_tasks_pending(&A.tasks, "s-2"));
	assert_true(ag_tasks_pending(&A.tasks, "s-1001"));
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(without_a_control_channel_they_wait),
	    TEST(only_their_own_message_id_confirms_them),
	    TEST(beyond_a_thousand_the_oldest_is_given_up),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
