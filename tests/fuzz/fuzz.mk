# Fuzzing.  tests/fuzz/fuzz_NAME.c has LLVMFuzzerTestOneInput and links the library
# (fuzz_td_NAME.c the daemon's parts too); seeds lie in tests/fuzz/corpus/NAME.
#   make fuzz         all targets under libFuzzer, FUZZ_SECONDS each (FUZZ=NAME: that one)
#   make fuzz-replay  the seeds once, with gcc's sanitizers; part of `make check`
CLANG ?= clang
FUZZ_SECONDS ?= 60
FUZZ_ALL := $(patsubst tests/fuzz/fuzz_%.c,%,$(sort $(wildcard tests/fuzz/fuzz_*.c)))
FUZZ ?= $(FUZZ_ALL)
# Each name has one rule: a pattern for all of them would fit those of the daemon as well, and which one is taken would be make's choice.
FUZZ_TD := $(filter td_%,$(FUZZ_ALL))
FUZZ_LIB := $(filter-out td_%,$(FUZZ_ALL))
FUZZ_FLAGS := -std=gnu11 -O1 -g -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined \
	-fno-sanitize-recover=undefined -DTNL_FUZZING

$(BUILD)/fuzz/%.o: %.c
	@mkdir -p $(@D)
	$(CLANG) $(CPPFLAGS) $(FUZZ_FLAGS) -MMD -MP -c -o $@ $<
$(FUZZ_TD:%=$(BUILD)/fuzz/bin/%): $(BUILD)/fuzz/bin/%: $(BUILD)/fuzz/tests/fuzz/fuzz_%.o $(TD_SRC:%.c=$(BUILD)/fuzz/%.o) $(LIB_SRC:%.c=$(BUILD)/fuzz/%.o)
	@mkdir -p $(@D)
	$(CLANG) -fsanitize=fuzzer,address,undefined -o $@ $(filter-out %/tunneld/main.o,$^) $(LIBS)
$(FUZZ_LIB:%=$(BUILD)/fuzz/bin/%): $(BUILD)/fuzz/bin/%: $(BUILD)/fuzz/tests/fuzz/fuzz_%.o $(LIB_SRC:%.c=$(BUILD)/fuzz/%.o)
	@mkdir -p $(@D)
	$(CLANG) -fsanitize=fuzzer,address,undefined -o $@ $^ $(LIB_LIBS)

fuzz: $(FUZZ:%=$(BUILD)/fuzz/bin/%)
	@for t in $(FUZZ); do \
	  mkdir -p $(BUILD)/fuzz/corpus/$$t $(BUILD)/fuzz/crashes tests/fuzz/corpus/$$t; \
	  echo "fuzz $$t, $(FUZZ_SECONDS) s"; \
	  $(BUILD)/fuzz/bin/$$t -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 -verbosity=0 \
	    -artifact_prefix=$(BUILD)/fuzz/crashes/$$t- $(BUILD)/fuzz/corpus/$$t tests/fuzz/corpus/$$t || exit 1; \
	done

replay := $(BUILD)/tests/fuzz/replay_
$(FUZZ_TD:%=$(replay)%): $(replay)%: $(BUILD)/obj/tests/fuzz/fuzz_%.o $(BUILD)/obj/tests/fuzz/replay.o $(TD_PARTS) $(LIB)
	@mkdir -p $(@D)
	$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)
$(FUZZ_LIB:%=$(replay)%): $(replay)%: $(BUILD)/obj/tests/fuzz/fuzz_%.o $(BUILD)/obj/tests/fuzz/replay.o $(LIB)
	@mkdir -p $(@D)
	$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIB_LIBS) -lm

ifdef SANITIZE
fuzz-replay: $(FUZZ:%=fuzz-replay-%)
$(FUZZ_ALL:%=fuzz-replay-%): fuzz-replay-%: $(replay)%
	@$< tests/fuzz/corpus/$*
else
fuzz-replay:
	@$(MAKE) --no-print-directory SANITIZE=1 fuzz-replay
endif

-include $(wildcard $(BUILD)/fuzz/lib/*.d $(BUILD)/fuzz/tunneld/*.d $(BUILD)/fuzz/tunneld/*/*.d $(BUILD)/fuzz/tests/fuzz/*.d $(BUILD)/obj/tests/fuzz/*.d)
.PHONY: fuzz fuzz-replay
