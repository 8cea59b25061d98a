/* The words of a command line: options by letter and by name, operands, and what stands behind --. */
#include "tunneld/command/command.h"
#include "tunneld/config/config.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int td_args_usage(const struct td_command *cmd, const char *fmt, ...)
{
	va_list ap;
	fputs("tunneld: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\ntry: tunneld %s%s--help\n", cmd->name, *cmd->name ? " " : "");
	return TD_EXIT_USAGE;
}

static const struct td_arg *find_long(const struct td_arg *args, size_t n, const char *s, size_t len)
{
	for (size_t i = 0; i < n; i++)
		if (args[i].name && strlen(args[i].name) == len && memcmp(args[i].name, s, len) == 0)
			return &args[i];
	return NULL;
}

static const struct td_arg *find_letter(const struct td_arg *args, size_t n, char c)
{
	for (size_t i = 0; i < n; i++)
		if (args[i].letter == c)
			return &args[i];
	return NULL;
}

static bool takes_value(const struct td_arg *a)
{
	return a->value || a->each;
}

static int set(const struct td_command *cmd, const struct td_arg *a, const char *value)
{
	if (a->each)
		return a->each(a->ctx, value) ? 0 : -1 - TD_EXIT_USAGE;
	if (a->value && *a->value)
		return -1 - td_args_usage(cmd, "option --%s is given twice", a->name);
	if (a->value)
		*a->value = value;
	else
		*a->flag = true;
	return 0;
}

/* -abc VALUE; gives how many further words were taken, or a negative result. */
static int letters(const struct td_command *cmd, char **word, const struct td_arg *args, size_t n)
{
	for (const char *c = word[0] + 1; *c; c++) {
		const struct td_arg *a = find_letter(args, n, *c);
		if (!a)
			return -1 - td_args_usage(cmd, "unknown option -%c", *c);
		if (!takes_value(a)) {
			int r = set(cmd, a, NULL);
			if (r)
				return r;
			continue;
		}
		const char *value = c[1] ? c + 1 : word[1];
		if (!value)
			return -1 - td_args_usage(cmd, "option -%c requires a value", *c);
		int r = set(cmd, a, value);
		return r ? r : !c[1];
	}
	return 0;
}

static int long_option(const struct td_command *cmd, char **word, const struct td_arg *args, size_t n)
{
	const char *name = word[0] + 2, *eq = strchr(name, '=');
	size_t len = eq ? (size_t)(eq - name) : strlen(name);
	const struct td_arg *a = find_long(args, n, name, len);
	if (!a)
		return -1 - td_args_usage(cmd, "unknown option --%.*s", (int)len, name);
	if (!takes_value(a) && eq)
		return -1 - td_args_usage(cmd, "option --%s takes no value", a->name);
	if (takes_value(a) && !eq && !word[1])
		return -1 - td_args_usage(cmd, "option --%s requires a value", a->name);
	int r = set(cmd, a, eq ? eq + 1 : word[1]);
	return r ? r : takes_value(a) && !eq;
}

/* How many further words the option at *word takes. */
static int value_words(char **word, const struct td_arg *args, size_t n)
{
	const char *w = *word;
	if (w[1] == '-') {
		const struct td_arg *a = find_long(args, n, w + 2, strcspn(w + 2, "="));
		return a && takes_value(a) && !strchr(w, '=');
	}
	for (const char *c = w + 1; *c; c++) {
		const struct td_arg *a = find_letter(args, n, *c);
		if (!a || takes_value(a))
			return a && !c[1];
	}
	return 0;
}

int td_args_command(const struct td_command *cmd, int argc, char **argv, const struct td_arg *args, size_t n)
{
	bool named = false;
	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
		if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
			return 0;
		if (argv[i][0] == '-' && argv[i][1])
			i += value_words(argv + i, args, n);
		else if (named)
			return td_args_usage(cmd, "-- is missing before %s, or its options would be taken for ours",
					     argv[i]);
		else
			named = true;
	}
	return 0;
}

/* own: how many operands may have options around them; what follows these is a command, taken as it is. */
static int read_words(const struct td_command *cmd, int argc, char **argv, const struct td_arg *args, size_t n, int own)
{
	int operands = 0;
	for (int i = 1; i < argc; i++) {
		char *w = argv[i];
		int r = 0;
		if (strcmp(w, "--help") == 0 || strcmp(w, "-h") == 0) {
			fputs(cmd->help, stdout);
			return -1 - TD_EXIT_OK;
		}
		if (strcmp(w, "--version") == 0 || strcmp(w, "-V") == 0) {
			puts("tunneld " TUNNELD_VERSION);
			return -1 - TD_EXIT_OK;
		}
		bool is_option = w[0] == '-' && w[1], is_end = strcmp(w, "--") == 0;
		if (is_end || (!is_option && operands == own)) {
			for (i += is_end; i < argc; i++)
				argv[++operands] = argv[i];
			break;
		}
		if (!is_option)
			argv[++operands] = w;
		else if (w[1] == '-')
			r = long_option(cmd, argv + i, args, n);
		else
			r = letters(cmd, argv + i, args, n);
		if (r < 0)
			return r;
		i += r;
	}
	return operands;
}

int td_args_and_command(const struct td_command *cmd, int argc, char **argv, const struct td_arg *args, size_t n)
{
	return read_words(cmd, argc, argv, args, n, 1);
}

int td_args(const struct td_command *cmd, int argc, char **argv, const struct td_arg *args, size_t n, int max_operands)
{
	int operands = read_words(cmd, argc, argv, args, n, argc);
	if (operands > max_operands)
		return -1 -
		       td_args_usage(cmd, "unexpected argument %s%s", argv[max_operands + 1],
				     cmd->name[0] ? "" : "; a command stands before its options, a file behind -c");
	return operands;
}
