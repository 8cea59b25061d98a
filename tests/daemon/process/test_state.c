/* The state directory: where it is, who may enter, who holds it; and what systemd is told. */
#include "tests/daemon/base/td_test.h"

#include "lib/err.h"
#include "tunneld/process/notify.h"
#include "tunneld/process/state.h"
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

static char dir[64];

static int setup(void **state)
{
	alarm(60);
	unsetenv("STATE_DIRECTORY");
	unsetenv("XDG_STATE_HOME");
	unsetenv("NOTIFY_SOCKET");
	setenv("HOME", "/home/somebody", 1);
	strcpy(dir, "/tmp/tunneld-state-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	char command[160];
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command);
}

static void assert_root(const char *configured, const char *expected)
{
	char *root = td_state_root(configured);
	if (expected)
		assert_string_equal(root, expected);
	else
		assert_null(root);
	tnl_free(root);
}

static void test_root(void **state)
{
	assert_root(NULL, "/home/somebody/.local/state/tunneld");
	setenv("XDG_STATE_HOME", "/x", 1);
	assert_root(NULL, "/x/tunneld");
	setenv("XDG_STATE_HOME", "relative", 1);
	assert_root(NULL, "/home/somebody/.local/state/tunneld");
	setenv("STATE_DIRECTORY", "/var/lib/a:/var/lib/b", 1);
	assert_root(NULL, "/var/lib/a");
	assert_root("/c", "/c");
	unsetenv("STATE_DIRECTORY");
	unsetenv("XDG_STATE_HOME");
	unsetenv("HOME");
	assert_root(NULL, NULL);
}

static void test_name(void **state)
{
	char a[64], b[64];
	td_state_name("agent", NULL, a, sizeof(a));
	assert_string_equal(a, "agent");
	td_state_name("agent", "/etc/one.ini", a, sizeof(a));
	td_state_name("agent", "/etc/two.ini", b, sizeof(b));
	assert_int_equal(strlen(a), strlen("agent-123456789abc"));
	assert_memory_equal(a, "agent-", 6);
	assert_string_not_equal(a, b);
	td_state_name("agent", "/etc/one.ini", b, sizeof(b));
	assert_string_equal(a, b);
}

static void test_open(void **state)
{
	struct td_state s, t;
	struct stat st;
	char root[128], why[512] = "", *file;
	snprintf(root, sizeof(root), "%s/a b/c", dir);
	assert_int_equal(td_state_open(&s, root, "agent", "/etc/one.ini", why, sizeof(why)), 0);
	assert_memory_equal(s.dir, root, strlen(root));
	assert_int_equal(stat(s.dir, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	assert_int_equal(stat(root, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	file = td_state_file(&s, "name");
	assert_memory_equal(file, s.dir, strlen(s.dir));
	assert_string_equal(file + strlen(s.dir), "/name");
	tnl_free(file);
	/* One process each; another configuration has its own. */
	assert_int_equal(td_state_open(&t, root, "agent", "/etc/one.ini", why, sizeof(why)), TNL_EBUSY);
	assert_non_null(strstr(why, "is in use by another tunneld, process "));
	assert_non_null(strstr(why, "with the configuration /etc/one.ini"));
	assert_null(t.dir);
	assert_int_equal(td_state_open(&t, root, "agent", "/etc/two.ini", why, sizeof(why)), 0);
	td_state_close(&t);
	td_state_close(&s);
	assert_int_equal(td_state_open(&s, root, "agent", "/etc/one.ini", why, sizeof(why)), 0);
	td_state_close(&s);
}

static void test_closed_to_others(void **state)
{
	struct td_state s;
	struct stat st;
	char why[512] = "";
	assert_int_equal(chmod(dir, 0755), 0);
	assert_int_equal(td_state_open(&s, dir, "agent", NULL, why, sizeof(why)), 0);
	assert_int_equal(stat(dir, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	td_state_close(&s);
}

static void test_cannot(void **state)
{
	struct td_state s;
	char root[128], why[512] = "";
	snprintf(root, sizeof(root), "%s/file", dir);
	close(open(root, O_CREAT | O_WRONLY, 0600));
	assert_int_equal(td_state_open(&s, root, "agent", NULL, why, sizeof(why)), TNL_EIO);
	assert_non_null(strstr(why, "is not a directory; set state_dir in [tunneld] or $STATE_DIRECTORY"));
	strcat(root, "/below");
	assert_int_equal(td_state_open(&s, root, "agent", NULL, why, sizeof(why)), TNL_EIO);
	assert_non_null(strstr(why, "Not a directory; set state_dir"));
	unsetenv("HOME");
	assert_int_equal(td_state_open(&s, NULL, "agent", NULL, why, sizeof(why)), TNL_EIO);
	assert_non_null(strstr(why, "no place for the state directory, since HOME is not set; set state_dir"));
	if (geteuid() != 0)
		return;
	assert_int_equal(chown(dir, 65534, 65534), 0);
	assert_int_equal(td_state_open(&s, dir, "agent", NULL, why, sizeof(why)), TNL_EIO);
	assert_non_null(strstr(why, "is owned by another user"));
}

static void test_notify(void **state)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	char got[1100], *end;
	assert_false(td_notify_wanted());
	assert_false(td_notify("READY=1"));
	setenv("NOTIFY_SOCKET", "relative", 1);
	assert_false(td_notify_wanted());
	snprintf(a.sun_path, sizeof(a.sun_path), "%s/notify", dir);
	setenv("NOTIFY_SOCKET", a.sun_path, 1);
	assert_true(td_notify_wanted());
	assert_false(td_notify("READY=1")); /* nobody listens */
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_true(td_notify("READY=%d\nSTATUS=%s", 1, "fine"));
	ssize_t n = recv(fd, got, sizeof(got), 0);
	assert_int_equal(n, strlen("READY=1\nSTATUS=fine"));
	assert_memory_equal(got, "READY=1\nSTATUS=fine", (size_t)n);
	assert_true(td_notify_reloading("busy"));
	n = recv(fd, got, sizeof(got) - 1, 0);
	got[n] = '\0';
	assert_memory_equal(got, "RELOADING=1\nMONOTONIC_USEC=", 27);
	assert_true(strtoull(got + 27, &end, 10) > 0);
	assert_string_equal(end, "\nSTATUS=busy");
	close(fd);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
	    TEST(test_root),   TEST(test_name),	  TEST(test_open), TEST(test_closed_to_others),
	    TEST(test_cannot), TEST(test_notify),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
