/* Very many that come at once are let in before the kernel's queue of them overflows, which costs those whom it drops
 * seconds; and the loop goes on in between. */
#include "tests/daemon/base/td_test.h"
#include "tunneld/net/listen.h"

#define MANY 400
#define MORE 800 /* than a turn takes */

static int accepted;

static void on_accept(void *ctx, int fd, const struct td_addr *peer)
{
	accepted++;
	close(fd);
}

static int connect_to(const struct td_addr *a)
{
	int fd = socket(a->sa.sa_family, SOCK_STREAM, 0);
	assert_int_equal(connect(fd, &a->sa, a->len), 0);
	return fd;
}

static void a_crowd(void **state)
{
	static int fds[MORE];
	struct td_addr at = t_addr("127.0.0.1:0"), bound;
	char why[300] = "";
	t_open();
	struct td_listener *l = td_listen(T, &at, on_accept, NULL, why, sizeof(why));
	assert_non_null(l);
	td_listener_addr(l, &bound);
	for (int i = 0; i < MANY; i++)
		fds[i] = connect_to(&bound);
	t_turns(1);
	assert_int_equal(accepted, MANY);
	for (int i = 0; i < MANY; i++)
		close(fds[i]);
	accepted = 0;
	for (int i = 0; i < MORE; i++)
		fds[i] = connect_to(&bound);
	t_turns(1);
	assert_in_range(accepted, MANY, MORE - 1);
	t_turns(1);
	assert_int_equal(accepted, MORE);
	for (int i = 0; i < MORE; i++)
		close(fds[i]);
	td_listener_free(l);
	t_close();
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(a_crowd)};
	return cmocka_run_group_tests_name("listeners", tests, NULL, NULL);
}
