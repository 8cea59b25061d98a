/* Targets as they are written, alone and in lists. */
#include "tests/unit/check.h"
#include "lib/num.h"
#include "lib/target.h"

static struct tnl_target t;

static int parse(const char *s)
{
	const char *fault = NULL;
	int rc = tnl_target_parse(s, strlen(s), &t, &fault);
	assert_int_equal(rc != 0, fault != NULL);
	return rc;
}

static void kinds(void **state)
{
	assert_int_equal(parse("i-0123456789abcdef0"), 0);
	assert_int_equal(t.kind, TNL_TARGET_ID);
	assert_int_equal(parse("ecs:prod_0123abc_0123abc-456"), 0);
	assert_int_equal(t.kind, TNL_TARGET_ID);
	assert_string_equal(t.text, "ecs:prod_0123abc_0123abc-456");
	assert_int_equal(parse("name:web-1.internal"), 0);
	assert_int_equal(t.kind, TNL_TARGET_NAME);
	assert_string_equal(t.name, "web-1.internal");
	assert_int_equal(parse("ecs:prod/api"), 0);
	assert_int_equal(t.kind, TNL_TARGET_ECS);
	assert_string_equal(t.cluster, "prod");
	assert_string_equal(t.service, "api");
	assert_null(t.container);
	assert_int_equal(parse("ecs:prod/api/side_car"), 0);
	assert_string_equal(t.container, "side_car");
}

static void tags(void **state)
{
	assert_int_equal(parse(" tag: Name = my box , env=prod,aws:autoscaling:groupName=a=b "), 0);
	assert_int_equal(t.kind, TNL_TARGET_TAG);
	assert_int_equal(t.ntags, 3);
	assert_string_equal(t.tag[0].key, "Name");
	assert_string_equal(t.tag[0].value, "my box");
	assert_string_equal(t.tag[1].value, "prod");
	assert_string_equal(t.tag[2].key, "aws:autoscaling:groupName");
	assert_string_equal(t.tag[2].value, "a=b");
	assert_string_equal(t.text, "tag:Name=my box,env=prod,aws:autoscaling:groupName=a=b");
	assert_int_equal(parse("tag:a=1,b=2,c=3,d=4,e=5,f=6,g=7,h=8"), 0);
}

static void refused(void **state)
{
	static const char *const bad[] = {"",
					  "tag:",
					  "tag:Name",
					  "tag:=x",
					  "tag:Name=",
					  "tag:a=1,",
					  "tag:a=1,i-1",
					  "tag:a=1\n",
					  "tag:a=1,b=2,c=3,d=4,e=5,f=6,g=7,h=8,i=9",
					  "name:",
					  "name:a/b",
					  "name:a b",
					  "ecs:/x",
					  "ecs:a/",
					  "ecs:a/b/",
					  "ecs:a/b/c/d",
					  "ecs:a b/c",
					  "i 1",
					  "i-1,i-2",
					  "tags:Name=x"};
	char long_one[TNL_TARGET_TEXT + 2];
	for (size_t i = 0; i < TNL_COUNT(bad); i++)
		if (parse(bad[i]) != TNL_ESYNTAX)
			fail_msg("%s passes", bad[i]);
	memset(long_one, 'x', sizeof(long_one));
	long_one[sizeof(long_one) - 1] = '\0';
	memcpy(long_one, "tag:a=", 6);
	assert_int_equal(parse(long_one), TNL_ESYNTAX);
	long_one[6 + 256] = '\0';
	assert_int_equal(parse(long_one), 0);
	long_one[6 + 256] = 'x';
	long_one[6 + 257] = '\0';
	assert_int_equal(parse(long_one), TNL_ESYNTAX);
}

/* The entries of a list, each in [ ]. */
static const char *split(const char *list)
{
	static char out[400];
	size_t n, at = 0;
	out[0] = '\0';
	for (const char *e; (e = tnl_target_next(&list, &n)) != NULL;)
		at += (size_t)snprintf(out + at, sizeof(out) - at, "[%.*s]", (int)n, e);
	return out;
}

static void lists(void **state)
{
	assert_string_equal(split("i-1"), "[i-1]");
	assert_string_equal(split(" i-1 , i-2 "), "[i-1][i-2]");
	assert_string_equal(split("tag:env=prod, role=db, i-1"), "[tag:env=prod, role=db][i-1]");
	assert_string_equal(split("i-1,tag:a=1,b=2,tag:c=3,name:x,ecs:a/b"),
			    "[i-1][tag:a=1,b=2][tag:c=3][name:x][ecs:a/b]");
	assert_string_equal(split("i-1,,i-2"), "[i-1][][i-2]");
	assert_string_equal(split("i-1,"), "[i-1][]");
	assert_string_equal(split("name:x,b=2"), "[name:x][b=2]"); /* belongs to nothing */
	assert_string_equal(split(""), "[]");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(kinds),
	    cmocka_unit_test(tags),
	    cmocka_unit_test(refused),
	    cmocka_unit_test(lists),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
