/* Secrets that stand in files of their own: secret_access_key_file beside secret_access_key.  What the file holds is
 * taken as if it were written in the configuration, so that whoever compares two configurations sees it change. */
#include "lib/alloc.h"
#include "tunneld/base/file.h"
#include "tunneld/config/internal.h"
#include <string.h>
#include <sys/stat.h>

/* Without the end of its only line; false: it has more than one, or none. */
static bool take_line(char *text, size_t len)
{
	while (len && (text[len - 1] == '\n' || text[len - 1] == '\r'))
		text[--len] = '\0';
	return len > 0 && !memchr(text, '\n', len) && strlen(text) == len;
}

/* As td_cfg_check_files says of other files: missing is a mistake only for who needs it now. */
static void load_file(struct td_cfg_parse *p, int line, const char *key, const char *path, const struct td_opt *to,
		      void *base)
{
	struct stat st;
	size_t len;
	const char *why;
	bool others = p->has_secret;
	char *text = td_cfg_slurp(path, TD_FILE_SMALL, 0, &len, &st, &why);
	if (!text)
		(p->files_are_errors ? td_cfg_error : td_cfg_warn)(p, line, "%s: cannot read %s: %s", key, path, why);
	else if (td_cfg_others_can_read(&st))
		td_cfg_error(p, line, "%s: others can read %s (mode %04o); do: chmod 600 %s", key, path,
			     (unsigned)(st.st_mode & 07777), path);
	else if (td_cfg_others_can_write(&st))
		td_cfg_error(p, line, "%s: everybody can change %s (mode %04o); do: chmod o-w %s", key, path,
			     (unsigned)(st.st_mode & 07777), path);
	else if (!take_line(text, len))
		td_cfg_error(p, line, "%s: %s must hold the secret in one line, and nothing else", key, path);
	else
		td_value_set(p, line, to, base, text);
	p->has_secret = others; /* not in this file */
	if (text)
		tnl_free_wiped(text, len);
}

static void load_secret(struct td_cfg_parse *p, const struct td_section_read *s, const char *key, const char *file_key)
{
	const struct td_opt *to = td_opt_find(s->kind, key), *from = td_opt_find(s->kind, file_key);
	if (!to || !from || !s->key_line[from - td_opts])
		return;
	int line = s->key_line[from - td_opts];
	struct td_place at = td_section_place(p->c, s->kind, s->index);
	char *base = td_opt_base(from, at);
	const char *path = *(char **)(void *)(base + from->off);
	if (s->key_line[to - td_opts])
		td_cfg_error(p, line, "%s and %s (line %d): only one of them", file_key, key,
			     s->key_line[to - td_opts]);
	else if (path)
		load_file(p, line, file_key, path, to, td_opt_base(to, at));
	if (!s->key_line[to - td_opts])
		s->key_line[to - td_opts] = line;
}

void td_cfg_load_secrets(struct td_cfg_parse *p, const struct td_section_read *s)
{
	load_secret(p, s, "secret_access_key", "secret_access_key_file");
	load_secret(p, s, "secret_access_key_2", "secret_access_key_file_2");
}
