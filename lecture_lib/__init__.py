"""The library of the course, promoted from its notebooks. Written by `lecture promote`.

notebook            module           what it holds
------------------  ---------------  -----------------------------------------------
01_tokenization     tokenization     Tokenization: text into numbers, and back
02_batches          batches          Batches: chunks of text for the Transformer
03_bigram           bigram           The bigram language model
                    training         Settings, loss estimates and the training loop
04_averaging        averaging        Averaging the past: the trick in self-attention
05_self_attention   self_attention   Self-attention
                    language_model   The frame of every language model
06_single_head      generation       Generate text token by token
                    single_head      A single head
07_multi_head       multi_head       Multi-head attention
08_feed_forward     feed_forward     Feed-forward
09_residual         residual         Residual connections
10_layer_norm       layer_norm       Layer norm
10b_long_runs       checkpoint       Save and load checkpoints
                    long_run         Run long trainings that can be interrupted
11_gpt              gpt              Scaling up: the GPT
12_encoder_decoder  sequences        Marks and padding for texts of unequal length
                    encoder_decoder  Encoder, decoder, both
12b_translation     number_words     Numbers as French and English words
                    translation      Train a translator and let it translate
13_nanogpt          nanogpt          nanoGPT
                    kv_cache         Key-value cache
                    gpt2_weights     Read and write the weights of GPT-2 and nanoGPT
13b_generation      decoding         Weights laid out for one token at a time
                    evaluation       Score a model on a whole split
13c_trainer         recipe           Learning-rate schedule and weight-decay groups
                    trainer          nanoGPT's training script
                    throughput       Training speed and the processor's peak
13d_sizing          sizing           Parameters, FLOPs and memory by formula
14_fine_tuning      requests         Requests with answers that can be checked
                    fine_tuning      Supervised fine-tuning
14b_rlhf            reward_model     Reward model
                    ppo              Proximal policy optimization (PPO)
14c_dpo             dpo              Direct preference optimization (DPO)
16_counts           held_out         Held-out text: plays and parts of plays
                    counts           Counts that learn
16b_modern_block    modern_block     The block, nine years on
                    muon             The Muon optimizer
16c_speedrun        speedrun         The speedrun
17_your_own_data    own_text         A GPT on your own text
17b_addition        arithmetic       Problems with exact answers
17c_calculator      calculator       A calculator
18_pretraining      pretraining      What pretraining buys

Written by hand are `base`, which every chapter may use, and `course`, which runs them all.
"""

from lecture_lib.base.threads import begin_with_one

begin_with_one()
