/* Texts of a configuration, read: what is said of them, and what comes out. */
#ifndef CONFIG_SAID_H
#define CONFIG_SAID_H
#include "tests/unit/check.h"
#include "tunneld/config/config.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Parses; *said gets what was printed (free). */
static struct td_config *parse_said(const char *text, unsigned roles, char **said)
{
	size_t n;
	FILE *f = open_memstream(said, &n);
	struct td_config *c = td_config_parse(text, "t.ini", "/base", roles, f);
	fclose(f);
	return c;
}

static struct td_config *parse_ok(const char *text, unsigned roles)
{
	char *said = NULL;
	struct td_config *c = parse_said(text, roles, &said);
	if (!c)
		print_error("%s", said);
	assert_non_null(c);
	free(said);
	return c;
}

/* The text is refused and exactly these lines are printed. */
static void expect(const char *text, unsigned roles, const char *lines)
{
	char *said = NULL;
	struct td_config *c = parse_said(text, roles, &said);
	assert_null(c);
	if (strcmp(said, lines) != 0)
		fprintf(stderr, "--- said:\n%s--- wanted:\n%s", said, lines); /* cmocka cuts long texts */
	assert_string_equal(said, lines);
	free(said);
}

#define TUNNEL "[tunnel a]\nlisten = 127.0.0.1:1\ntarget = i-1\nport = 2\n"

#endif
