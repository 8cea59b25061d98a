/* Loading a configuration: text → sections → checked → what they take from each other. */
#include "tunneld/config/config.h"
#include "lib/alloc.h"
#include "tunneld/base/file.h"
#include "tunneld/config/internal.h"
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Whether any section of that kind has the key. */
static bool in_file(const struct td_cfg_parse *p, enum td_section kind, const char *key)
{
	for (int k = 0; k < p->nsecs; k++)
		if (p->secs[k].kind == kind && td_opt_line(&p->secs[k], key))
			return true;
	return false;
}

/* What a section left open comes from [aws] and [tunneld]. */
static void settle(struct td_cfg_parse *p)
{
	struct td_config *c = p->c;
	for (enum td_section kind = 0; kind < TD_SECTION_COUNT; kind++)
		for (int i = 0; i < td_section_count(c, kind); i++) {
			struct td_place at = td_section_place(c, kind, i);
			if (at.aws && kind != TD_SECTION_AWS)
				td_aws_config_inherit(at.aws, &c->aws);
		}
	if (!in_file(p, TD_SECTION_AGENT, "drain_timeout"))
		c->agent.drain_timeout_ns = c->fwd.drain_timeout_ns;
	if (!in_file(p, TD_SECTION_GATEWAY, "drain_timeout"))
		c->gw.drain_timeout_ns = c->fwd.drain_timeout_ns;
}

/* full: of a file, links resolved; NULL: it is none. */
static struct td_config *parse(const char *text, size_t len, const char *name, const char *dir, const char *full,
			       unsigned roles, const struct stat *st, FILE *errors)
{
	struct td_cfg_parse p = {.c = td_cfg_alloc(sizeof(*p.c)),
				 .full = full,
				 .lines = td_cfg_map(),
				 .files_are_errors = roles & TD_ROLE_FILES};
	for (enum td_section kind = 0; kind < TD_SECTION_COUNT; kind++)
		if (!td_sections[kind].named)
			td_cfg_set_defaults(&p, kind, 0, 0);
	td_cfg_read_file(&p, name, dir, text, len, 0);
	if (st)
		td_cfg_check_mode(&p, 0, st);
	td_cfg_read_included(&p);
	td_cfg_check(&p, roles);
	settle(&p);
	if (!p.nerrors)
		td_cfg_split_ranges(&p);
	for (int i = 0; i < p.nsecs; i++) {
		tnl_free(p.secs[i].name);
		tnl_free(p.secs[i].key_line);
	}
	tnl_free(p.secs);
	tnl_map_free(p.lines);
	td_cfg_print_notes(&p, errors);
	td_cfg_files_free(&p);
	if (!p.nerrors)
		return p.c;
	td_config_free(p.c);
	return NULL;
}

struct td_config *td_config_parse(const char *text, const char *name, const char *dir, unsigned roles, FILE *errors)
{
	return parse(text, strlen(text), name, dir, NULL, roles, NULL, errors);
}

struct td_config *td_config_load(const char *path, unsigned roles, FILE *errors)
{
	struct stat st;
	size_t len = 0;
	const char *why;
	unsigned pipe = roles & TD_ROLE_AGAIN ? 0 : TD_FILE_PIPE;
	char *text = td_cfg_slurp(path, TD_CFG_FILE_MAX, pipe, &len, &st, &why), *full = realpath(path, NULL);
	if (!text) {
		if (errors)
			fprintf(errors, "%s: cannot read the configuration: %s\n", path, why);
		free(full);
		return NULL;
	}
	char *dir = td_cfg_dup(full ? full : path, strlen(full ? full : path)), *slash = strrchr(dir, '/');
	if (slash)
		slash[slash == dir ? 1 : 0] = '\0';
	struct td_config *c = parse(text, len, path, dir, full, roles, &st, errors);
	if (c)
		c->path = td_cfg_dup(full ? full : path, strlen(full ? full : path));
	tnl_free_wiped(text, len);
	tnl_free(dir);
	free(full);
	return c;
}

char *td_config_find(const char *arg)
{
	const char *env = getenv("TUNNELD_CONFIG"), *home = getenv("HOME"), *xdg = getenv("XDG_CONFIG_HOME");
	char path[4096];
	/* What was named is taken whether it exists or not: the error must say so. */
	if (arg)
		return td_cfg_dup(arg, strlen(arg));
	if (env && *env)
		return td_cfg_dup(env, strlen(env));
	if (xdg && *xdg == '/')
		snprintf(path, sizeof(path), "%s/tunneld/tunneld.ini", xdg);
	else
		snprintf(path, sizeof(path), "%s/.config/tunneld/tunneld.ini", home ? home : "");
	if ((home || xdg) && !access(path, F_OK))
		return td_cfg_dup(path, strlen(path));
	if (!access("/etc/tunneld/tunneld.ini", F_OK))
		return td_cfg_dup("/etc/tunneld/tunneld.ini", strlen("/etc/tunneld/tunneld.ini"));
	return NULL;
}
