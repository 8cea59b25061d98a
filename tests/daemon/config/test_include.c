/* include: which files are read and in which order, where their mistakes are said to be, and the bounds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/alloc.h"
#include "tunneld/config/config.h"

static char dir[64], *said;

static int set_up(void **state)
{
	char sub[80];
	strcpy(dir, "/tmp/tunneld-include-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(sub, sizeof(sub), "%s/conf.d", dir);
	return mkdir(sub, 0700);
}

static int tear_down(void **state)
{
	char command[100];
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	free(said);
	said = NULL;
	return system(command);
}

static void put(const char *name, const char *text)
{
	char path[160];
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	chmod(path, 0600);
}

static struct td_config *load(void)
{
	char path[160];
	size_t n;
	free(said);
	said = NULL;
	FILE *f = open_memstream(&said, &n);
	snprintf(path, sizeof(path), "%s/main.ini", dir);
	struct td_config *c = td_config_load(path, 0, f);
	fclose(f);
	return c;
}

#define TUNNEL(name, port) "[tunnel " name "]\nlisten = 127.0.0.1:" port "\ntarget = i-1\nport = 1\n"

static void order(void **state)
{
	char want[240];
	put("main.ini", "include = conf.d/*.ini\n[aws]\nregion = eu-west-1\n" TUNNEL("main", "1"));
	put("conf.d/20.ini", TUNNEL("c", "4"));
	put("conf.d/10.ini", "include = more\n" TUNNEL("b", "2") "ca_file = ca.pem\n");
	put("conf.d/more", TUNNEL("more", "3"));
	put("conf.d/10.ini~", "nonsense");
	struct td_config *c = load();
	assert_non_null(c);
	assert_int_equal(c->fwd.ntunnels, 4);
	static const char *const names[] = {"main", "b", "c", "more"};
	for (int i = 0; i < 4; i++) {
		assert_string_equal(c->fwd.tunnels[i].name, names[i]);
		assert_string_equal(c->fwd.tunnels[i].aws.region, "eu-west-1");
	}
	snprintf(want, sizeof(want), "%s/conf.d/ca.pem", dir); /* beside the file that names it */
	assert_string_equal(c->fwd.tunnels[1].aws.ca_file, want);
	assert_int_equal(c->included.n, 3);
	snprintf(want, sizeof(want), "%s/conf.d/more", dir);
	assert_string_equal(c->included.v[2], want);
	td_config_free(c);

	put("main.ini", "[tunneld]\nlog_level = warn\ninclude = nowhere/*.ini, conf.d/20.ini\n");
	c = load();
	assert_non_null(c); /* no match is none, and said */
	snprintf(want, sizeof(want), "warning: %s/main.ini:3: include: no file matches %s/nowhere/*.ini\n", dir, dir);
	assert_string_equal(said, want);
	assert_int_equal(c->fwd.ntunnels, 1);
	td_config_free(c);
}

static void expect(const char *fmt)
{
	char want[2000], *at = want;
	for (const char *s = fmt; *s; s++)
		at += *s == '@' ? snprintf(at, 64, "%s", dir) : (*at = *s, 1);
	*at = '\0';
	assert_null(load());
	assert_string_equal(said, want);
}

static void mistakes(void **state)
{
	put("main.ini", "include = conf.d/*.ini\n" TUNNEL("a", "1") "nonsense = 1\n");
	put("conf.d/1.ini", "\n" TUNNEL("b", "1"));
	put("conf.d/2.ini", TUNNEL("a", "2") "port = 70000\n[user x]\naccess_key_id = K\n");
	expect("@/main.ini:6: unknown key nonsense in [tunnel]\n"
	       "@/conf.d/1.ini:3: listen: 127.0.0.1:1 is taken already, on line 3 of @/main.ini\n"
	       "@/conf.d/2.ini:1: section [tunnel a] is there already, on line 2 of @/main.ini\n"
	       "@/conf.d/2.ini:5: port is there already, on line 4\n"
	       "@/conf.d/2.ini:6: [user x] requires secret_access_key\n"
	       "@/conf.d/2.ini:6: [user x] requires targets\n"
	       "@/conf.d/2.ini:6: [user x] requires a [gateway] in the same file\n");
	put("main.ini", "include = no.ini, , conf.d\n");
	expect("@/main.ini:1: include: an entry of the list is empty\n"
	       "@/main.ini:1: include: cannot read @/no.ini: No such file or directory\n"
	       "@/main.ini:1: include: cannot read @/conf.d: is a directory\n");
}

static void bounds(void **state)
{
	put("main.ini", "include = conf.d/a\n");
	put("conf.d/a", "include = b\n");
	put("conf.d/b", "include = ../main.ini, a\n");
	expect("@/conf.d/b:1: include: @/conf.d/../main.ini includes this file, by line 1 of @/main.ini: a cycle\n"
	       "@/conf.d/b:1: include: @/conf.d/a includes this file, by line 1 of @/conf.d/a: a cycle\n");
	put("main.ini", "\ninclude = conf.d/b, main.ini\n");
	put("conf.d/b", "\n\ninclude = b, c, c\n");
	put("conf.d/c", TUNNEL("x", "1"));
	expect("@/main.ini:2: include: @/main.ini is this file itself, a cycle\n"
	       "@/conf.d/b:3: include: @/conf.d/b is this file itself, a cycle\n"
	       "@/conf.d/b:3: include: @/conf.d/c is read already, by line 3\n");
	put("main.ini", "include = conf.d/a\n");
	put("conf.d/b", "include = c\n");
	put("conf.d/c", "include = d\n");
	put("conf.d/d", "include = e\n");
	put("conf.d/e", TUNNEL("x", "1"));
	expect("@/conf.d/d:1: include: files are nested deeper than 4\n");
	put("main.ini", "include = conf.d/n*\n");
	for (int i = 0; i < 1002; i++) {
		char name[40];
		snprintf(name, sizeof(name), "conf.d/n%04d", i);
		put(name, "; nothing\n");
	}
	expect("@/main.ini:1: include: more than 1000 files\n");
}

static void modes(void **state)
{
	char path[160];
	put("main.ini", "include = conf.d/a\n");
	put("conf.d/a", "[aws]\naccess_key_id = AKID\nsecret_access_key = not-for-others\n");
	snprintf(path, sizeof(path), "%s/conf.d/a", dir);
	chmod(path, 0644);
	struct td_config *c = load();
	assert_non_null(c);
	td_config_free(c);
	assert_non_null(strstr(said, "conf.d/a: others can read the secrets in this file (mode 0644)"));
	assert_null(strstr(said, "main.ini: others"));
	chmod(path, 0602);
	assert_null(load());
	assert_non_null(strstr(said, "conf.d/a: everybody can change this file (mode 0602)"));
}

static void nothing_leaks(void **state)
{
	long before = tnl_alloc_live();
	put("main.ini", "include = conf.d/*, none\n");
	put("conf.d/a", "include = b\n[aws]\nregion = x\nfoo\n");
	assert_null(load());
	assert_int_equal(tnl_alloc_live(), before);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)
	const struct CMUnitTest tests[] = {TEST(order), TEST(mistakes), TEST(bounds), TEST(modes), TEST(nothing_leaks)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
