/* Log lines: shape in both formats, levels, what peers may not do to a terminal or a log file. */
#include "lib/json.h"
#include "tunneld/base/log.h"
#include <fcntl.h>
#include <pty.h>
#include <stdarg.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>
#include <cmocka.h>

static char got[65536];
static int saved_fd, pipe_fd[2];

/* stderr goes into a pipe from here to caught(). */
static void catch_stderr(void)
{
	fflush(stderr);
	assert_int_equal(pipe2(pipe_fd, O_NONBLOCK), 0);
	saved_fd = dup(2);
	dup2(pipe_fd[1], 2);
}

static const char *caught(void)
{
	dup2(saved_fd, 2);
	close(saved_fd);
	close(pipe_fd[1]);
	ssize_t n = read(pipe_fd[0], got, sizeof(got) - 1);
	close(pipe_fd[0]);
	got[n > 0 ? n : 0] = '\0';
	return got;
}

static void expect_tail(const char *line, const char *tail)
{
	/* 2026-11-23T12:00:00.123Z and the rest */
	static const char shape[] = "dddd-dd-ddTdd:dd:dd.dddZ ";
	for (size_t i = 0; shape[i]; i++)
		if (shape[i] == 'd' ? line[i] < '0' || line[i] > '9' : line[i] != shape[i])
			fail_msg("time stamp: %.30s", line);
	assert_string_equal(line + sizeof(shape) - 1, tail);
}

static void test_text(void **s)
{
	td_log_setup(TNL_LOG_INFO, TD_LOG_TEXT);
	catch_stderr();
	td_info("fwd", "ops-1@x.y", "opened listen=%s", "127.0.0.1:1");
	expect_tail(caught(), "INFO fwd session=ops-1@x.y opened listen=127.0.0.1:1\n");
	catch_stderr();
	td_error("main", NULL, "bad");
	expect_tail(caught(), "ERROR main bad\n");
	catch_stderr();
	tnl_log(TNL_LOG_WARN, "channel", "library n=%d", 5);
	expect_tail(caught(), "WARN channel library n=5\n");
}

static void test_levels(void **s)
{
	td_log_setup(TNL_LOG_WARN, TD_LOG_TEXT);
	catch_stderr();
	td_info("m", NULL, "no");
	td_debug("m", NULL, "no");
	tnl_log(TNL_LOG_INFO, "m", "no");
	assert_string_equal(caught(), "");
	td_log_setup(TNL_LOG_DEBUG, TD_LOG_TEXT);
	catch_stderr();
	td_debug("m", NULL, "yes");
	expect_tail(caught(), "DEBUG m yes\n");
}

static void test_escape(void **s)
{
	td_log_setup(TNL_LOG_INFO, TD_LOG_TEXT);
	catch_stderr();
	/* A second line, colours, DEL, C1, a broken sequence, an overlong one, a turn of direction; then fine ones. */
	td_info("m", "s\n",
		"a\nb\x1b[31m\x7f \xc2\x9b \xff \xc0\x8a \xe2\x80\xae \xe2\x80\xa6 \xc3\xa4 \xf0\x9f\x98\x80 \\ \"");
	expect_tail(
	    caught(),
	    "INFO m session=s\\n a\\nb\\x1b[31m\\x7f \\xc2\\x9b \\xff \\xc0\\x8a \\xe2\\x80\\xae … ä 😀 \\ \"\n");
}

static void test_json(void **s)
{
	td_log_setup(TNL_LOG_INFO, TD_LOG_JSON);
	catch_stderr();
	td_warn("m\"", "s", "q\" b\\ n\n e\x1b \xff ä");
	const char *line = caught();
	assert_int_equal(line[strlen(line) - 1], '\n');
	struct tnl_json *j = tnl_json_parse(line, strlen(line) - 1);
	assert_non_null(j);
	assert_string_equal(tnl_json_get_str(j, "level"), "warn");
	assert_string_equal(tnl_json_get_str(j, "module"), "m\"");
	assert_string_equal(tnl_json_get_str(j, "session"), "s");
	assert_string_equal(tnl_json_get_str(j, "message"), "q\" b\\ n\n e\x1b \xc3\xbf ä");
	assert_int_equal(strlen(tnl_json_get_str(j, "time")), 24);
	tnl_json_free(j);
}

/* One line as JSON; *raw what was written. */
static struct tnl_json *json_line(void)
{
	const char *line = caught();
	struct tnl_json *j = *line ? tnl_json_parse(line, strlen(line) - 1) : NULL;
	if (!j)
		fail_msg("no JSON: %s", line);
	return j;
}

static const char *member(const struct tnl_json *j, const char *key)
{
	const char *s = tnl_json_get_str(j, key);
	return s ? s : "(none)";
}

static void test_json_members(void **s)
{
	int64_t n;
	td_log_setup(TNL_LOG_INFO, TD_LOG_JSON);
	catch_stderr();
	td_warn("m", "ses", "cannot open tunnel=%s port=%u, text=\"%s\": %s", "pg", 5432u, "say \"hi\" \\ tunnel=x",
		"why owner=root \x1eowner=root");
	struct tnl_json *j = json_line();
	assert_string_equal(member(j, "message"), "cannot open,: why owner=root \\x1eowner=root");
	assert_string_equal(member(j, "tunnel"), "pg");
	assert_true(tnl_json_int(tnl_json_get(j, "port"), &n) && n == 5432);
	assert_string_equal(member(j, "text"), "say \"hi\" \\ tunnel=x");
	assert_null(tnl_json_get(j, "owner"));
	tnl_json_free(j);
	/* what the line has by itself stays; the first of two counts; a value that is a peer's is no number */
	catch_stderr();
	td_info("m", "ses", "session=%s level=%s time=%d message=%s a=%d a=%d owner=%s big=%llu", "other", "x", 1, "y",
		1, 2, "123", 12345678901234567890ull);
	j = json_line();
	assert_string_equal(member(j, "session"), "ses");
	assert_string_equal(member(j, "level"), "info");
	assert_string_equal(member(j, "message"), "");
	assert_true(tnl_json_int(tnl_json_get(j, "a"), &n) && n == 1);
	assert_string_equal(member(j, "owner"), "123");
	assert_string_equal(member(j, "big"), "12345678901234567890");
	tnl_json_free(j);
	catch_stderr();
	tnl_log(TNL_LOG_WARN, "lib", "session=%s bad frame: field=%s", "s-1", "x y");
	j = json_line();
	assert_string_equal(member(j, "session"), "s-1");
	assert_string_equal(member(j, "field"), "x y");
	assert_string_equal(member(j, "message"), "bad frame:");
	tnl_json_free(j);
}

/* More pairs than there is room for: whole members, whatever their size. */
static void test_json_room(void **s)
{
	static char big[4000], quotes[3000];
	memset(big, '\x02', sizeof(big) - 1);
	memset(quotes, '"', sizeof(quotes) - 1);
	td_log_setup(TNL_LOG_INFO, TD_LOG_JSON);
	for (size_t cut = 0; cut < 200; cut++) {
		catch_stderr();
		td_info("m", big + 3000 + cut, "a=%s b=%s c=%.*s d=1 e=2", quotes, big, (int)cut, big);
		tnl_json_free(json_line());
		catch_stderr();
		td_info("m", NULL, "%.*s a=1 b=%s", (int)(700 + cut), big, quotes);
		tnl_json_free(json_line());
	}
}

static int journal_at(char path[64])
{
	strcpy(path, "/tmp/tunneld-journal-XXXXXX");
	assert_non_null(mkdtemp(path));
	strcat(path, "/socket");
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	strcpy(a.sun_path, path);
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	return fd;
}

static void close_journal(int fd, char *path)
{
	close(fd);
	td_log_journal(NULL);
	unlink(path);
	*strrchr(path, '/') = '\0';
	rmdir(path);
}

/* From somebody else. */
static int send_one(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	strcpy(a.sun_path, path);
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	ssize_t n = sendto(fd, "x", 1, 0, (struct sockaddr *)&a, sizeof(a));
	close(fd);
	return n == 1 ? 0 : -1;
}

static const char *received(int fd)
{
	ssize_t n = recv(fd, got, sizeof(got) - 1, 0);
	got[n > 0 ? n : 0] = '\0';
	return got;
}

static void test_journal(void **s)
{
	char path[64];
	int fd = journal_at(path);
	td_log_setup(TNL_LOG_INFO, TD_LOG_TEXT);
	td_log_journal(path);
	catch_stderr();
	td_warn("m", "ses", "bad tunnel=%s n=%d text=\"%s\"", "pg", 5, "two\nlines PRIORITY=0\x1eowner=root");
	assert_string_equal(caught(), "");
	assert_string_equal(received(fd),
			    "SYSLOG_IDENTIFIER=tunneld\nPRIORITY=4\nTUNNELD_MODULE=m\nTUNNELD_SESSION=ses\n"
			    "MESSAGE=m session=ses bad tunnel=pg n=5 text=\"two\\nlines "
			    "PRIORITY=0\\x1eowner=root\"\nTUNNELD_TUNNEL=pg\nTUNNELD_N=5\n"
			    "TUNNELD_TEXT=two\\nlines PRIORITY=0\\x1eowner=root\n");
	static char big[6000];
	memset(big, '\x02', sizeof(big) - 1);
	td_info("m", NULL, "t=\"%s\" u=%d", big, 1);
	const char *text = received(fd);
	assert_true(strlen(text) > 20000 && text[strlen(text) - 1] == '\n');
	/* JSON is for whoever reads standard error. */
	td_log_setup(TNL_LOG_INFO, TD_LOG_JSON);
	catch_stderr();
	td_info("m", NULL, "x");
	assert_true(caught()[0] == '{');
	assert_string_equal(received(fd), "");
	/* A journal that is away. */
	td_log_setup(TNL_LOG_INFO, TD_LOG_TEXT);
	close(fd);
	catch_stderr();
	td_info("m", NULL, "x");
	expect_tail(caught(), "INFO m x\n");
	close_journal(-1, path);
}

static void test_connections(void **s)
{
	assert_int_equal(td_log_of_connection(), TNL_LOG_INFO);
	td_log_connections(false);
	assert_int_equal(td_log_of_connection(), TNL_LOG_DEBUG);
	td_log_connections(true);
	assert_int_equal(td_log_of_connection(), TNL_LOG_INFO);
}

static void test_long(void **s)
{
	char *big = malloc(100001);
	memset(big, '\x01', 100000); /* six bytes each in JSON */
	big[100000] = '\0';
	for (int f = 0; f < 2; f++) {
		td_log_setup(TNL_LOG_INFO, f ? TD_LOG_JSON : TD_LOG_TEXT);
		catch_stderr();
		td_info("m", NULL, "%s", big);
		const char *line = caught();
		size_t n = strlen(line);
		assert_true(n > 4000 && n <= 8192);
		assert_ptr_equal(strchr(line, '\n'), line + n - 1);
		if (f) {
			struct tnl_json *j = tnl_json_parse(line, n - 1);
			assert_non_null(j);
			tnl_json_free(j);
		}
		/* A session name of that size leaves no room, and harms nothing. */
		catch_stderr();
		td_info("m", big, "%s", big);
		line = caught();
		assert_true(strlen(line) <= 8192 && line[strlen(line) - 1] == '\n');
	}
	free(big);
}

/* What three lines, of which only so many bytes find room, and a fourth afterwards leave in the file. */
static const char *after_full_disk(rlim_t room)
{
	struct rlimit old, small;
	int file = memfd_create("log", MFD_CLOEXEC), before = dup(2);
	getrlimit(RLIMIT_FSIZE, &old);
	small = (struct rlimit){room, old.rlim_max};
	signal(SIGXFSZ, SIG_IGN);
	dup2(file, 2);
	setrlimit(RLIMIT_FSIZE, &small);
	for (int i = 0; i < 3; i++)
		td_info("m", NULL, "line");
	setrlimit(RLIMIT_FSIZE, &old);
	td_info("m", NULL, "after");
	dup2(before, 2);
	close(before);
	ssize_t n = pread(file, got, sizeof(got) - 1, 0);
	close(file);
	got[n > 0 ? n : 0] = '\0';
	return got;
}

/* A disk that is full: what was lost is told once there is room, and no line stands in another. */
static void test_full(void **s)
{
	static const char whole[] = "2026-11-23T12:00:00.123Z INFO m line\n";
	const unsigned size = sizeof(whole) - 1;
	char told[100];
	td_log_setup(TNL_LOG_INFO, TD_LOG_TEXT);
	for (unsigned room = 0; room <= 3 * size; room++) {
		char *line = (char *)(uintptr_t)after_full_disk(room), *end;
		for (unsigned i = 0; i < room / size; i++, line += size)
			assert_memory_equal(line + 24, whole + 24, size - 24);
		if (room % size) { /* one that is there in part */
			assert_true(line[room % size] == '\n');
			line += room % size + 1;
		}
		if (room < 3 * size) {
			end = strchr(line, '\n');
			assert_non_null(end);
			*end = '\0';
			snprintf(told, sizeof(told),
				 "WARN log lines of the log could not be written lines=%u error=\"File too large\"",
				 3 - room / size);
			expect_tail(line, told);
			line = end + 1;
		}
		expect_tail(line, "INFO m after\n");
	}
}

/* Adds what is there to what was read before. */
static size_t read_more(int fd, char *all, size_t len, size_t cap)
{
	ssize_t n;
	while (len < cap - 1 && (n = read(fd, all + len, cap - 1 - len)) > 0)
		len += (size_t)n;
	all[len] = '\0';
	return len;
}

/* Whole lines that are there, and those of which it is told that they are not. */
static unsigned count_lines(const char *all)
{
	unsigned n = 0, missing;
	for (const char *p = all, *end; (end = strchr(p, '\n')) != NULL; p = end + 1) {
		const char *told = strstr(p, "WARN log lines of the log could not be written lines="),
			   *mark = strstr(p, " that nobody reads\n");
		if (told && told < end) {
			assert_int_equal(sscanf(strstr(told, "lines="), "lines=%u error=\"nobody reads them\"",
						&missing),
					 1);
			n += missing;
		}
		n += mark && mark < end;
	}
	return n;
}

/* A reader that has stopped: he is waited for for a moment, and what he missed is told when he takes lines again; a
 * terminal may take some meanwhile. */
static void stalled(int in, int out)
{
	enum { LINES = 20000 };
	static char all[4 << 20];
	fcntl(out, F_SETFL, O_NONBLOCK);
	catch_stderr();
	dup2(in, 2);
	for (unsigned i = 0; i < LINES; i++)
		tnl_log(TNL_LOG_INFO, "m", "line n=%u of many that nobody reads", i);
	size_t len = read_more(out, all, 0, sizeof(all));
	assert_true(count_lines(all) < LINES);
	tnl_log(TNL_LOG_INFO, "m", "after");
	read_more(out, all, len, sizeof(all));
	dup2(saved_fd, 2);
	close(saved_fd);
	close(pipe_fd[0]);
	close(pipe_fd[1]);
	assert_int_equal(count_lines(all), LINES);
	assert_non_null(strstr(all, "INFO m after\n"));
	assert_string_equal(strstr(all, "INFO m after\n"), "INFO m after\n"); /* the last */
	close(in);
	close(out);
}

static void test_stalled(void **s)
{
	int fd[2];
	char path[64];
	td_log_setup(TNL_LOG_INFO, TD_LOG_TEXT);
	alarm(100); /* else who waits for ever never fails */
	assert_int_equal(pipe(fd), 0);
	stalled(fd[1], fd[0]);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
	stalled(fd[1], fd[0]);
	struct termios raw = {0};
	cfmakeraw(&raw);
	assert_int_equal(openpty(&fd[0], &fd[1], NULL, &raw, NULL), 0);
	stalled(fd[1], fd[0]);
	/* A journal: its lines go where those of others do. */
	int journal = journal_at(path);
	td_log_journal(path);
	assert_int_equal(pipe(fd), 0);
	while (send_one(path) == 0)
		;
	stalled(fd[1], fd[0]);
	while (*received(journal))
		;
	td_info("m", NULL, "again");
	assert_non_null(strstr(received(journal), "MESSAGE=m again\n"));
	close_journal(journal, path);
	alarm(0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_text),		cmocka_unit_test(test_levels),
					   cmocka_unit_test(test_escape),	cmocka_unit_test(test_json),
					   cmocka_unit_test(test_json_members), cmocka_unit_test(test_json_room),
					   cmocka_unit_test(test_journal),	cmocka_unit_test(test_connections),
					   cmocka_unit_test(test_long),		cmocka_unit_test(test_full),
					   cmocka_unit_test(test_stalled)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
